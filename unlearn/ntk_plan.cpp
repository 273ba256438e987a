#include "unlearn/ntk_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "engine/progress.h"
#include "engine/storage.h"
#include "engine/tiles.h"

namespace fastntk {
namespace {

constexpr std::array<std::pair<const char*, NtkRepresentation>, 6> names{{
    {"auto", NtkRepresentation::automatic},
    {"thin", NtkRepresentation::thin},
    {"thin-file", NtkRepresentation::thin_file},
    {"primal", NtkRepresentation::primal},
    {"dual", NtkRepresentation::dual},
    {"matrix-free", NtkRepresentation::matrix_free},
}};

constexpr double flops_per_disk_byte = 200;  // about 200 Gflop/s beside 1 GB/s
constexpr int64_t block_columns = 256;
constexpr double unlimited = std::numeric_limits<double>::infinity();

double allocated(double bytes) {
  return bytes <= 0 ? 0 : static_cast<double>(allocated_bytes(static_cast<size_t>(bytes)));
}

// What all candidates share.
class Planner {
 public:
  explicit Planner(const NtkProblem& p)
      : p_(p),
        stored_rows_(p.stored_rows ? p.stored_rows : p.rows),
        stored_(p.stored ? p.stored : p.columns),
        product_(p.product_columns ? p.product_columns : p.columns),
        height_(p.samples * p.rows),
        width_((p.samples2 ? p.samples2 : p.samples) * p.rows),
        rows_(tiling_of(height_)),
        columns_(tiling_of(width_)),
        all_(p.samples + p.samples2) {}

  double budget() const { return p_.memory ? static_cast<double>(p_.memory) : unlimited; }
  double device_budget() const {
    return std::min(budget(), p_.on_device && p_.device_memory > 0 ? static_cast<double>(ntk_share_of(p_.device_memory))
                                                                   : unlimited);
  }
  bool fits(const NtkPlan& plan) const { return fits(Bytes{plan.bytes, plan.device_bytes}); }

  NtkPlan plan(NtkRepresentation representation) const {
    switch (representation) {
      case NtkRepresentation::primal:
        return primal();
      case NtkRepresentation::matrix_free:
        return matrix_free();
      default:
        return dual(representation);
    }
  }

 private:
  // Rows of Θ that are averages over a sample's rows of J. JᵀJ and products with J know only the sums over all of them.
  bool averaged() const { return stored_rows_ != p_.rows; }
  bool elements() const { return p_.elements || p_.purpose == NtkPurpose::block; }
  bool symmetric() const { return p_.samples2 == 0; }
  double sweeps(double samples) const {
    return samples * static_cast<double>(1 + (p_.cotangents ? p_.cotangents : stored_rows_)) * p_.forward_flops;
  }
  double row_bytes(int64_t samples) const {
    return allocated(static_cast<double>(samples * stored_rows_ * stored_ * p_.element)) +
           allocated(static_cast<double>(samples * p_.sample_extra * p_.element));
  }
  // Of a set's rows in `tiles` tiles at any place.
  double tile_bytes(const Tiling& tiling, int64_t tiles, int64_t samples) const {
    const int64_t most =
        tiles >= tiling.count ? samples : std::min(samples, (tiles * tiling.extent + p_.rows - 1) / p_.rows + 1);
    return row_bytes(most);
  }
  // Of what is done with a matrix of this size in the end: dsyevr, Lanczos, or a factorisation.
  double end_flops(double n) const {
    if (p_.purpose == NtkPurpose::spectrum) return 4.0 / 3 * n * n * n;
    if (p_.purpose == NtkPurpose::top_eigenvalues) return 2 * n * n * static_cast<double>(p_.iterations);
    return p_.purpose == NtkPurpose::solve ? n * n * n / 3 : 0;
  }
  // SymmetricMatrix of this size.
  static double half(const Tiling& t) {
    return allocated(8.0 * static_cast<double>(lower_tiles(t.count)) * static_cast<double>(t.extent) *
                     static_cast<double>(t.extent));
  }
  static double dense(double n) { return allocated(8 * n * n); }
  // Panels and tiles of scratch of all threads, while tiles [rows, columns] are multiplied.
  double panels(int64_t rows, int64_t columns) const {
    if (columns == 0) return 0;
    rows = std::min(rows, std::max<int64_t>(1, ntk_tiles_per_step / columns));
    const int64_t together = ntk_tiles_together(rows, columns, p_.threads);
    const int64_t items = ((rows + together - 1) / together) * ((columns + together - 1) / together);
    return 2 * static_cast<double>(std::min<int64_t>(items, p_.threads)) *
           (allocated(8.0 * static_cast<double>(together) * Tiling::largest * block_columns) +
            allocated(8.0 * Tiling::largest * Tiling::largest));
  }
  // Bytes of the host and of the device.
  struct Bytes {
    double host = 0, device = 0;
  };
  static double most(const Bytes& b) { return std::max(b.host, b.device); }
  bool fits(const Bytes& b) const { return b.host <= budget() && b.device <= device_budget(); }
  // On a device: a block of products and the part that is added to it, and the rows of either side in float64.
  Bytes device_products(int64_t rows, int64_t columns) const {
    if (columns == 0) return {};
    rows = std::min(rows, std::max<int64_t>(1, ntk_tiles_per_step / columns));
    const double height = static_cast<double>(rows * rows_.extent),
                 width = static_cast<double>(columns * columns_.extent);
    // The sum; what is added to it, and in float32 also as it was multiplied; on the host factors of layers as well.
    const double block = allocated(8 * height * width), both = height + width;
    const double columns_at_once = p_.float_products ? 512 : std::max(1024.0, (1 << 25) / both);
    const double converted =
        allocated((p_.float_products ? 4 : 8) * both * std::min(static_cast<double>(stored_), columns_at_once));
    return {.host = (p_.sample_extra ? 3 : 2) * block, .device = (p_.float_products ? 2.5 : 2) * block + converted};
  }
  // What comes after the matrix: its eigenvalues on a dense copy, or a factor beside it.
  double after(const Tiling& t) const {
    if (p_.purpose == NtkPurpose::spectrum) return dense(static_cast<double>(t.size));
    return p_.purpose == NtkPurpose::solve ? half(t) : 0;
  }

  NtkPlan dual(NtkRepresentation representation) const {
    NtkPlan out{.representation = representation};
    const double kernel =
        symmetric() ? half(rows_)
                    : allocated(8.0 * static_cast<double>(rows_.padded()) * static_cast<double>(columns_.padded()));
    const double products = static_cast<double>(height_) * static_cast<double>(width_) * static_cast<double>(product_) *
                            (symmetric() ? 1 : 2);
    const double end = kernel + after(rows_), sweeping = static_cast<double>(p_.sweep_bytes);
    const auto bytes = [&](int64_t resident, int64_t streamed) -> Bytes {
      const double held = tile_bytes(rows_, resident, p_.samples);
      // Of a symmetric kernel, what is before the last resident group passes by.
      if (symmetric()) streamed = std::min(streamed, (rows_.count - 1) / resident * resident);
      const double streams = streamed ? tile_bytes(columns_, streamed, symmetric() ? p_.samples : p_.samples2) : 0;
      if (p_.on_device) {
        const Bytes own = symmetric() ? device_products(resident, resident) : Bytes{},
                    other = device_products(resident, streamed);
        // A tile of rows on its way to the file.
        const double copied = representation == NtkRepresentation::thin_file ? tile_bytes(rows_, 1, p_.samples) : 0;
        return {.host = std::max({end, kernel + own.host, kernel + other.host, kernel + copied}),
                .device = std::max(held + own.device, held + streams + std::max(sweeping, other.device))};
      }
      const double own = symmetric() ? panels(resident, resident) : 0;  // before anything is streamed
      return {.host = std::max({end, kernel + held + own,
                                kernel + held + streams + std::max(sweeping, panels(resident, streamed))})};
    };
    const int64_t all_streamed = symmetric() ? 0 : columns_.count;
    const Bytes everything = bytes(rows_.count, all_streamed);
    const auto take = [&](const Bytes& b) { out.bytes = b.host, out.device_bytes = b.device; };
    out.double_flops = (p_.float_products ? 0 : products) + end_flops(static_cast<double>(height_));
    out.flops = sweeps(static_cast<double>(all_)) + products + end_flops(static_cast<double>(height_));
    if (symmetric() == false && p_.purpose != NtkPurpose::block) return refused(out, "a spectrum needs one set");
    if (representation == NtkRepresentation::thin || fits(everything)) {
      out.resident_tiles = rows_.count, out.streamed_tiles = all_streamed;
      take(everything);
      out.least_bytes = most(everything);
      if (representation != NtkRepresentation::thin)
        out.least_bytes = most(bytes(1, rows_.count > 1 || !symmetric() ? 1 : 0));
      if (representation == NtkRepresentation::thin_file)
        out.disk_bytes = 2 * static_cast<double>(all_ * stored_rows_ * stored_ * p_.element);
      return out;
    }
    // As much resident as fits beside a stream that keeps all threads busy.
    const int64_t busy = std::max<int64_t>(1, (p_.sweep_samples * p_.rows + columns_.extent - 1) / columns_.extent);
    out.streamed_tiles = std::min(busy, columns_.count);
    while (out.streamed_tiles > 1 && !fits(bytes(1, out.streamed_tiles))) out.streamed_tiles--;
    out.resident_tiles = 1;
    while (out.resident_tiles < rows_.count && fits(bytes(out.resident_tiles + 1, out.streamed_tiles)))
      out.resident_tiles++;
    take(bytes(out.resident_tiles, out.streamed_tiles));
    out.least_bytes = most(bytes(1, 1));
    // Every resident group meets all columns, or those before it.
    double streamed = 0;
    const int64_t extent = rows_.extent;
    double resident_samples = 0;
    for (int64_t from = 0; from < rows_.count; from += out.resident_tiles) {
      const int64_t to = std::min(rows_.count, from + out.resident_tiles);
      resident_samples += static_cast<double>(samples_of_tiles(from, to, extent, p_.rows, p_.samples).size());
      streamed += symmetric() ? static_cast<double>(from * extent) / static_cast<double>(p_.rows)
                              : static_cast<double>(p_.samples2);
    }
    const double computed = resident_samples + streamed;
    const double per_sample = static_cast<double>(stored_rows_ * stored_ * p_.element);
    if (representation == NtkRepresentation::thin_file) {
      out.disk_bytes = (static_cast<double>(all_) + computed) * per_sample;
    } else {
      out.row_passes = computed / static_cast<double>(all_);
      out.flops += sweeps(computed - static_cast<double>(all_));
    }
    return out;
  }

  NtkPlan primal() const {
    NtkPlan out{.representation = NtkRepresentation::primal};
    if (averaged()) return refused(out, "JᵀJ has no class average");
    if (elements() || p_.purpose == NtkPurpose::top_eigenvalues)
      return refused(out, elements() ? "JᵀJ does not show the elements of JJᵀ"
                                     : "the largest eigenvalues come from the dual or matrix-free");
    const Tiling t = tiling_of(p_.columns);
    const double P = static_cast<double>(p_.columns);
    const double matrix = half(t), blocks = allocated(8.0 * static_cast<double>(t.padded()) * block_columns);
    const double chunk =
        allocated(static_cast<double>(std::min(p_.samples, p_.sweep_samples) * p_.rows * p_.columns * p_.element));
    const auto sweeping = static_cast<double>(p_.sweep_bytes);
    if (p_.on_device) {
      // A sum in panels of 1,024 columns, products of the widest of them, 2,048 rows in float64; at the end a dense
      // copy on the host.
      out.device_bytes = matrix + allocated(8 * P * 1024) * 2 + allocated(8 * P * 2048) + chunk + sweeping;
      out.bytes = std::max(2 * matrix + dense(P), matrix + after(t));
    } else {
      out.bytes = std::max(matrix + blocks + chunk + sweeping, matrix + after(t));
    }
    out.least_bytes = std::max(out.bytes, out.device_bytes);
    out.double_flops = static_cast<double>(height_) * P * P + end_flops(P);
    out.flops = sweeps(static_cast<double>(p_.samples)) + out.double_flops;
    return out;
  }

  NtkPlan matrix_free() const {
    NtkPlan out{.representation = NtkRepresentation::matrix_free};
    if (averaged()) return refused(out, "products with J have no class average");
    if (elements() || p_.purpose == NtkPurpose::spectrum)
      return refused(out, elements() ? "products with Θ do not show its elements"
                                     : "products with Θ give the largest eigenvalues only");
    const double P = static_cast<double>(p_.columns);
    const double vectors = std::max<double>(1, static_cast<double>(p_.vectors));
    // Lanczos keeps its basis [steps, P]; conjugate gradients four vectors for each right-hand side.
    const double steps = static_cast<double>(p_.iterations);
    const double kept = p_.purpose == NtkPurpose::top_eigenvalues ? steps + 2 : 4 * vectors + 2;
    const double width = p_.purpose == NtkPurpose::solve ? vectors : 1;
    // A product holds θ twice, its vector in the model's type and its result beside the batches that are recorded.
    out.bytes = kept * allocated(8 * P) + allocated(static_cast<double>(p_.element) * P * width) +
                allocated(8 * P * width) + (p_.on_device ? 0 : static_cast<double>(p_.product_bytes));
    if (p_.on_device) out.device_bytes = static_cast<double>(p_.product_bytes);
    out.least_bytes = std::max(out.bytes, out.device_bytes);
    out.flops = static_cast<double>(p_.samples) * p_.forward_flops * (1 + 2 * width) * steps;
    return out;
  }

  static NtkPlan refused(NtkPlan plan, std::string why) {
    plan.possible = false;
    plan.obstacle = std::move(why);
    return plan;
  }

  const NtkProblem& p_;
  int64_t stored_rows_, stored_, product_, height_, width_;
  Tiling rows_, columns_;
  int64_t all_;
};

double cost(const NtkPlan& plan) { return plan.flops + plan.double_flops + flops_per_disk_byte * plan.disk_bytes; }

std::string flops_text(double flops) {
  if (flops >= 1e12) return fmt::format("{:.3g} Tflop", flops / 1e12);
  return flops >= 1e9 ? fmt::format("{:.3g} Gflop", flops / 1e9) : fmt::format("{:.3g} Mflop", flops / 1e6);
}

}  // namespace

NtkRepresentation ntk_representation(const std::string& name) {
  std::string known;
  for (const auto& [text, representation] : names) {
    if (name == text) return representation;
    known += (known.empty() ? "" : ", ") + std::string(text);
  }
  throw UsageError(fmt::format("there is no representation '{}'; there are {}", name, known));
}

std::string name_of(NtkRepresentation representation) {
  for (const auto& [text, value] : names)
    if (value == representation) return text;
  return "?";
}

SampleRange samples_of_tiles(int64_t from, int64_t to, int64_t extent, int64_t rows_per_sample, int64_t samples) {
  const int64_t end = std::min(to * extent, samples * rows_per_sample);
  return {from * extent / rows_per_sample, (end + rows_per_sample - 1) / rows_per_sample};
}

int64_t ntk_tiles_together(int64_t rows, int64_t columns, int threads) {
  int64_t together = 4;
  const auto items = [&] { return ((rows + together - 1) / together) * ((columns + together - 1) / together); };
  while (together > 1 && items() < 2 * threads) together /= 2;
  return together;
}

std::string NtkChoice::str() const {
  const bool on_device = plan.device_bytes > 0;
  const auto device = [&](const std::string& text) { return on_device ? fmt::format(" {:>10}", text) : ""; };
  std::string out =
      fmt::format("{:<12} {:>10}{} {:>12} {:>10} {:>7}\n", "", "memory", device("device"), "work", "disk", "rows");
  for (const NtkPlan& c : candidates) {
    if (!c.possible) {
      out += fmt::format("{:<12} {}\n", name_of(c.representation), c.obstacle);
      continue;
    }
    out += fmt::format("{:<12} {:>10}{} {:>12} {:>10} {:>6.2f}×{}\n", name_of(c.representation), format_bytes(c.bytes),
                       device(format_bytes(c.device_bytes)), flops_text(c.flops),
                       c.disk_bytes > 0 ? format_bytes(c.disk_bytes) : "–", c.row_passes,
                       c.representation == plan.representation ? "  chosen" : "");
  }
  return out + fmt::format("plan: {}, {} ({:.0f} bytes), {}: {}\n", name_of(plan.representation),
                           format_bytes(plan.bytes), plan.bytes, flops_text(plan.flops), reason);
}

NtkChoice plan_ntk(const NtkProblem& problem, NtkRepresentation asked) {
  require(problem.samples > 0 && problem.rows > 0 && problem.columns > 0,
          "a kernel of {} samples with {} rows each in {} parameters", problem.samples, problem.rows, problem.columns);
  require_usage(
      asked != NtkRepresentation::thin_file || problem.file,
      "the representation thin-file keeps rows in a file beside the one that is written, and none is written");
  const Planner planner(problem);
  NtkChoice out;
  const double budget = planner.budget();
  const NtkPlan* best = nullptr;
  double least = unlimited, least_device = unlimited;
  for (const auto& [text, representation] : names) {
    if (representation == NtkRepresentation::automatic) continue;
    if (representation == NtkRepresentation::thin_file && !problem.file) continue;
    out.candidates.push_back(planner.plan(representation));
  }
  for (const NtkPlan& c : out.candidates) {
    if (asked != NtkRepresentation::automatic && c.representation != asked) continue;
    require_usage(c.possible || asked == NtkRepresentation::automatic, "the representation {} will not do: {}",
                  name_of(asked), c.obstacle);
    if (!c.possible) continue;
    if (c.least_bytes <= budget) least_device = std::min(least_device, c.device_bytes);
    least = std::min(least, c.least_bytes);
    if (!planner.fits(c)) continue;
    if (!best || cost(c) < cost(*best)) best = &c;
  }
  require_usage(best != nullptr || least > budget,
                "{} does not fit into {} of the device's memory: {} would be needed there",
                asked == NtkRepresentation::automatic ? "this kernel" : "the representation " + name_of(asked),
                format_bytes(planner.device_budget()), format_bytes(least_device));
  require_usage(best != nullptr, "{} does not fit into {}; the smallest budget that does is {:.0f} bytes ({})",
                asked == NtkRepresentation::automatic ? "this kernel" : "the representation " + name_of(asked),
                format_bytes(budget), std::ceil(least), format_bytes(least));
  out.plan = *best;
  if (asked != NtkRepresentation::automatic) {
    out.reason = "asked for";
    return out;
  }
  std::string others;
  for (const NtkPlan& c : out.candidates) {
    if (c.representation == best->representation || !c.possible) continue;
    others += others.empty() ? "" : ", ";
    if (c.bytes > budget)
      others += fmt::format("{} needs {}", name_of(c.representation), format_bytes(c.least_bytes));
    else if (!planner.fits(c))
      others += fmt::format("{} needs {} of the device", name_of(c.representation), format_bytes(c.device_bytes));
    else if (cost(c) > cost(*best))
      others += fmt::format("{} takes {:.3g} times the work", name_of(c.representation), cost(c) / cost(*best));
    else
      others += fmt::format("{} is no faster", name_of(c.representation));
  }
  out.reason = fmt::format("the least work{}{}", problem.memory ? " within " + format_bytes(budget) : "",
                           others.empty() ? "" : " (" + others + ")");
  return out;
}

}  // namespace fastntk
