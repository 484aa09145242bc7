// Functions of a Simd vector. Include after one simd_*.h, in a translation unit of that suffix.
#pragma once

namespace kvasir {
namespace {

// 2^x. Relative error below 1.5 * 2^-24 (polynomial 0.27, sum and product the rest); exactly 1 at
// 0 and exactly 0 below -150. NaN stays.
inline Simd::F Exp2(Simd::F x) {
  Simd::F n;
  const Simd::F f = Simd::Split(x, &n);
  Simd::F p = Simd::Set(0x1.41fbbcp-13f);
  p = Simd::Fma(p, f, Simd::Set(0x1.5f3e54p-10f));
  p = Simd::Fma(p, f, Simd::Set(0x1.3b2d4cp-7f));
  p = Simd::Fma(p, f, Simd::Set(0x1.c6aee8p-5f));
  p = Simd::Fma(p, f, Simd::Set(0x1.ebfbdcp-3f));
  p = Simd::Fma(p, f, Simd::Set(0x1.62e430p-1f));
  return Simd::Scale2(Simd::Fma(p, f, Simd::Set(1.0f)), n);
}

// e^x for any x; huge results stay finite or become infinite. Relative error about 2 * 2^-24.
inline Simd::F Exp(Simd::F x) {
  x = Simd::Min(Simd::Set(89.0f), Simd::Max(Simd::Set(-110.0f), x));
  Simd::F n;
  Simd::Split(Simd::Mul(x, Simd::Set(0x1.715476p+0f)), &n);  // by 1 / ln 2
  // ln 2 in two parts, the first short enough that n * part is exact.
  Simd::F r = Simd::Fma(n, Simd::Set(-0x1.62e400p-1f), x);
  r = Simd::Fma(n, Simd::Set(-0x1.7f7d1cp-20f), r);
  Simd::F p = Simd::Set(0x1.6ae730p-10f);
  p = Simd::Fma(p, r, Simd::Set(0x1.126782p-7f));
  p = Simd::Fma(p, r, Simd::Set(0x1.555822p-5f));
  p = Simd::Fma(p, r, Simd::Set(0x1.55541ap-3f));
  p = Simd::Fma(p, r, Simd::Set(0x1.fffffcp-2f));
  p = Simd::Fma(p, r, Simd::Set(1.0f));
  return Simd::Scale2(Simd::Fma(p, r, Simd::Set(1.0f)), n);
}

}  // namespace
}  // namespace kvasir
