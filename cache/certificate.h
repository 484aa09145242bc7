// Certificate: when certify(eps, alpha) may stop climbing, calibrated so that P(KL > eps) <= alpha.
//
// The ladder: every rung computes a larger share of the chunk rows again; behind the last one
// stands exact prefill. The movement of rung i is KL(rung i || rung i-1) of the distributions of
// the first answer token; below rung 0 stands the look over the KV as stored. The rule: stop at the
// first rung whose movement is at most lambda, otherwise go to exact.
//
// The first token alone: it is what the promise is about (KL of the first token), it needs no
// answer to be forced, and a rung costs its rows and not a single decode step more.
//
// lambda by conformal risk control (Angelopoulos, Bates, Fisch, Lei, Schuster 2022). A sample's
// loss is 1{KL(exact || stopping rung) > eps}. A larger lambda stops earlier, which need not be
// worse, so that this loss is not monotone; the method wants it to be, hence the running maximum: a
// sample is lost at lambda if it is lost at any lambda' <= lambda. With n samples, lambda is the
// largest movement that they hold with n/(n+1) * risk(lambda) + 1/(n+1) <= alpha. Then the next
// request, if exchangeable with the samples, is lost with probability alpha at most (over samples
// and request together); the true loss is never above its running maximum. Limits: nothing is
// promised for requests of another kind than the samples, nor for one request alone; n < 1/alpha -
// 1 is too few.
//
// Kinds: samples say which collection or questions file they are of. lambda is the smallest over
// all samples together and over each kind that has enough of them, so that the promise holds for
// every kind seen (Mondrian conformal prediction, Vovk 2012), and one kind of easy requests does
// not speak for another.
//
// Pure functions on plain values; thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace kvasir {

// Rungs of certify, as shares of the chunk rows, ascending; exact follows. Rungs cost: the rows of
// every one that was tried are paid beside those of the one that answers.
inline constexpr double kCertifyRungs[] = {0.05, 0.15, 0.3};

// One request whose rungs were all measured against exact. Vectors have one entry a rung. Values
// that are not finite never allow a stop (movement) or count as lost (kl).
struct CalibrationSample {
  std::vector<double> movement;  // nats
  std::vector<double> kl;        // nats, KL(exact || rung)
  // Charged fraction of the whole request if it stops at this rung; one more entry, for exact. May
  // be empty: not known.
  std::vector<double> charged;
  uint64_t group = 0;  // of one kind: a collection, a questions file; 0 = not said
};

// A sample as its parts must be: `rungs` entries and one more.
bool Fits(const CalibrationSample& sample, size_t rungs);

// The rung where the rule stops; movement.size() = exact. No lambda: exact.
size_t StopAt(std::span<const double> movement, std::optional<double> lambda);

// The calibrated lambda; nullopt = too few samples, or no lambda is safe: climb to exact.
std::optional<double> CalibrateLambda(std::span<const CalibrationSample> samples, double epsilon,
                                      double alpha);

// What a stop with `movement` at `rung` is likely to be worth, for reports: the
// ceil((k + 1)(1 - alpha))-th smallest true KL (the largest, if k is too small for it) of the k
// samples whose movement at that rung is nearest to it in logarithm, k = max(20, n / 5) or all n.
// 0 for exact; nullopt without samples. A prediction, not a promise.
std::optional<double> PredictKl(std::span<const CalibrationSample> samples, size_t rung,
                                double movement, double alpha);

// What certify did with one request, for its reply.
struct CertificateReport {
  std::string rung;              // where it stopped: "query(0.15)", "exact"
  std::vector<double> movement;  // of the rungs that were tried, nats
  std::optional<double> lambda;  // nullopt: calibration was too short, so it went to exact at once
  std::optional<double> predicted_kl;
  int64_t samples = 0;  // that lambda stands on
};

// What another lambda would do to the samples.
struct CalibrationPoint {
  double lambda = 0;
  double risk = 0;     // share lost, by the running maximum
  double bound = 0;    // n/(n+1) * risk + 1/(n+1)
  double over = 0;     // share with KL > eps where the rule really stops, <= risk
  double exact = 0;    // share that climbs to exact
  double charged = 0;  // mean of those samples that know it
};

// At most `points` lambdas, spread evenly over the ranks of the samples' movements, and `also`;
// ascending.
std::vector<CalibrationPoint> CalibrationCurve(std::span<const CalibrationSample> samples,
                                               double epsilon, size_t points,
                                               std::optional<double> also = std::nullopt);

}  // namespace kvasir
