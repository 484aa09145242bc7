#!/usr/bin/env python3
"""Prints the figures of tests/quality/run.sh beside their bars; see there."""
import json
import pathlib
import sys

METRICS = ("kl_step1", "kl_mean", "kl_items_p95", "kl_p95", "charged")
# Report, ingestion, policy (None: the best one whose charge is within its bar), bars of METRICS.
BARS = (
    ("smollm2", "fixed", "concat", (0.06, 0.09, 0.16, None, 0.02)),
    ("smollm2", "fixed", None, (0.02, 0.05, 0.12, None, 0.10)),
    ("qwen", "fixed", None, (0.09, 0.065, None, None, 0.16)),
)
CODEC_BAR = 2e-3  # nats, INT8 on exact KV
CERTIFY = (0.05, 0.1, 0.5)  # epsilon, alpha, mean charge


def load(folder, name):
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def cell(row, metric):
    low, high = row["ci95"][metric]
    return f"{row[metric]:.3f} ({low:.3f}-{high:.3f})"


def print_table(report, name):
    print(f"\n{name}: {report['model']}, {report['items']} items; 95 % intervals over items; p95 of "
          "items' means, and of all steps pooled")
    print(f"{'ingestion':11s}{'policy':32s}" + "".join(f"{m:>22s}" for m in METRICS))
    for row in report["rows"]:
        print(f"{row['ingestion']:11s}{row['policy']:32s}" + "".join(f"{cell(row, m):>22s}" for m in METRICS))


def pick(report, ingestion, policy, bars):
    rows = [row for row in report["rows"] if row["ingestion"] == ingestion]
    if policy:
        return next(row for row in rows if row["policy"] == policy)
    within = [row for row in rows if row["charged"] <= bars[-1]]
    return min(within, key=lambda row: row["kl_mean"], default=None)


def print_bars(folder):
    print("\nbars")
    for name, ingestion, policy, bars in BARS:
        report = load(folder, name)
        row = report and pick(report, ingestion, policy, bars)
        if not row:
            continue
        for metric, bar in zip(METRICS, bars):
            if bar is not None:
                verdict = "reached" if row[metric] <= bar else f"not reached: {row[metric] / bar:.2f} of the bar"
                print(f"{name:9s}{ingestion}, {row['policy']:32s}{metric:14s}{row[metric]:8.3f} <= {bar:<6} {verdict}")


def print_codecs(report):
    print("\ncodecs on exact KV (KL step 1, mean)")
    for row in report["rows"]:
        if row["ingestion"] == "in_place":
            print(f"  {row['codec']:5s}{row['kl_step1']:.6f}  {row['kl_mean']:.6f}")
    int8 = next(row for row in report["rows"] if row["codec"] == "int8" and row["ingestion"] == "in_place")
    print(f"  int8 <= {CODEC_BAR}: {'reached' if int8['kl_step1'] <= CODEC_BAR else 'not reached'}")


def print_certify(report):
    epsilon, alpha, most = CERTIFY
    row = next(row for row in report["rows"] if row["policy"].startswith("certify"))
    kls = [item["kl"][0] for item in row["per_item"]]
    over = sum(kl > epsilon for kl in kls) / len(kls)
    print(f"\ncertify({epsilon},{alpha}) on {len(kls)} held-out questions of another data set")
    print(f"  share with KL > {epsilon}: {over:.3f} <= {alpha}: {'reached' if over <= alpha else 'not reached'}")
    print(f"  mean charge: {row['charged']:.3f} < {most}: {'reached' if row['charged'] < most else 'not reached'}")
    for name in ("concat", "query(0.05)"):
        beside = [r for r in report["rows"] if r["policy"] == name]
        if beside:
            share = sum(i["kl"][0] > epsilon for i in beside[0]["per_item"]) / len(beside[0]["per_item"])
            print(f"  {name} alone: {share:.3f} over")


def main():
    folder = pathlib.Path(sys.argv[1])
    for name in ("smollm2", "qwen", "gemma", "policies"):
        report = load(folder, name)
        if report:
            print_table(report, name)
    print_bars(folder)
    codecs, certify = load(folder, "codecs"), load(folder, "certify-held_out")
    if codecs:
        print_codecs(codecs)
    if certify:
        print_certify(certify)


if __name__ == "__main__":
    main()
