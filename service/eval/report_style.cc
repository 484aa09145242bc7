#include "service/eval/report_style.h"

namespace kvasir {

const std::string_view kReportStyle = R"css(
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f6f7f9; --text: #1b1f24; --soft: #59636e; --rule: #d5dae0;
  --grid: #e7eaee; --accent: #00558c; --best: #e8f1f8;
  --s0: #0072b2; --s1: #c24e00; --s2: #007a58; --s3: #a0447c; --s4: #8a6500; --s5: #3d4c5c;
  --p0: #8a6500; --p1: #56a5d8; --p2: #c24e00; --p3: #00553d; --p4: #9aa3ad;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14181d; --card: #1c2229; --text: #e6e9ed; --soft: #a2adb9; --rule: #3a434e;
    --grid: #2a323b; --accent: #7cc4f5; --best: #1d3242;
    --s0: #56b4e9; --s1: #ff8b4a; --s2: #2fcf9f; --s3: #e79ac8; --s4: #f0c64b; --s5: #c3ccd6;
    --p0: #f0c64b; --p1: #56b4e9; --p2: #ff8b4a; --p3: #0f8f6a; --p4: #6d7884;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 40px 0 8px; }
p { margin: 8px 0; max-width: 78ch; }
a { color: var(--accent); }
.soft { color: var(--soft); }
.lead { font-size: 1.06rem; background: var(--card); border-left: 4px solid var(--accent);
  padding: 12px 16px; margin: 16px 0; max-width: none; border-radius: 0 6px 6px 0; }
.scroll { overflow-x: auto; border: 1px solid var(--rule); border-radius: 6px; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--accent);
  outline-offset: 2px; }
table { border-collapse: separate; border-spacing: 0; font-size: .86rem; font-variant-numeric: tabular-nums;
  width: 100%; }
caption { text-align: left; color: var(--soft); padding: 8px 12px; }
th, td { padding: 6px 10px; text-align: right; vertical-align: top; white-space: nowrap;
  border-top: 1px solid var(--rule); }
thead th { font-weight: 600; vertical-align: bottom; border-top: 0;
  border-bottom: 2px solid var(--rule); }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--page);
  white-space: normal; min-width: 11em; max-width: 22em; overflow-wrap: break-word;
  font-weight: 600; }
tbody.group tr:first-child > * { border-top: 2px solid var(--rule); }
th small, td small { display: block; color: var(--soft); font-weight: 400; font-size: .78rem; }
tr.best > * { background: var(--best); }
.pill { display: inline-block; padding: 0 6px; border-radius: 8px; background: var(--accent); color: var(--page); font-size: .72rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 560px), 1fr));
  gap: 16px; align-items: start; }
figure { margin: 8px 0; padding: 12px; background: var(--card); border: 1px solid var(--rule);
  border-radius: 6px; min-width: 0; }
figcaption { font-size: .86rem; color: var(--soft); margin-top: 6px; }
figure h3 { margin: 0 0 4px; font-size: 1rem; }
figure svg:not(.sample) { display: block; width: 100%; height: auto; max-width: 900px;
  margin: 0 auto; }
.narrow { display: none; }
@media (max-width: 640px) {
  .wide { display: none; }
  .narrow { display: block; max-width: 460px; margin: 0 auto; }
  main { padding: 16px 10px 48px; }
  figure { padding: 8px 6px; }
  th:first-child { min-width: 8.8em; max-width: 9.5em; }
}
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 4px 0;
  padding: 0; font-size: .86rem; }
.legend li { display: flex; align-items: center; gap: 6px; overflow-wrap: anywhere; }
.sample { width: 16px; height: 16px; flex: none; }
.sample.long { width: 32px; }
.swatch { width: 14px; height: 14px; border-radius: 2px; flex: none; background: var(--c); }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif;
  fill: var(--text); }
svg .tick, svg .soft { fill: var(--soft); }
svg .name { font-weight: 600; }
svg .label { paint-order: stroke; stroke: var(--card); stroke-width: 3px;
  stroke-linejoin: round; }
.axis { stroke: var(--soft); stroke-width: 1; }
.grid { stroke: var(--grid); stroke-width: 1; }
.reference { stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 6 4; }
.front { fill: none; stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 2 3; }
.mark { fill: var(--c); stroke: var(--card); stroke-width: 1; }
.interval { stroke: var(--c); stroke-width: 1.5; opacity: .55; }
.part { fill: var(--c); stroke: var(--card); stroke-width: .75; }
.cut { stroke: var(--card); stroke-width: 2.5; }
.curve { fill: none; stroke: var(--c); stroke-width: 2.2; stroke-linejoin: round; }
.s0, .k0 { --c: var(--s0); } .s1, .k1 { --c: var(--s1); } .s2, .k2 { --c: var(--s2); }
.s3, .k3 { --c: var(--s3); } .s4, .k4 { --c: var(--s4); } .s5, .k5 { --c: var(--s5); }
.k6 { --c: var(--s0); }
.k1 { stroke-dasharray: 8 3; } .k2 { stroke-dasharray: 2 3; } .k3 { stroke-dasharray: 10 3 2 3; }
.k4 { stroke-dasharray: 5 3; } .k5 { stroke-dasharray: 12 4; } .k6 { stroke-dasharray: 3 5; }
.p0 { --c: var(--p0); } .p1 { --c: var(--p1); } .p2 { --c: var(--p2); } .p3 { --c: var(--p3); }
.p4 { --c: var(--p4); }
details { border: 1px solid var(--rule); border-radius: 6px; margin: 8px 0; background: var(--card); }
summary { cursor: pointer; padding: 8px 12px; font-weight: 600; overflow-wrap: anywhere; }
details > div { padding: 0 12px 12px; }
.case { border-top: 1px solid var(--rule); padding: 10px 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; margin: 4px 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
@media (max-width: 640px) { dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; } }
@media print { .scroll { overflow: visible; } details > div { display: block; } }
)css";

}  // namespace kvasir
