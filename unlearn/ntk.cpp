#include "unlearn/ntk.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "engine/device.h"
#include "engine/parallel.h"
#include "engine/progress.h"
#include "engine/sha256.h"
#include "unlearn/matrix_free.h"

namespace fastntk {
namespace {

constexpr int64_t tiles_per_group = 4;  // of samples and thread, that are computed before they are used

int64_t extent_or_zero(const Tensor& t) { return t.defined() ? t.extent(0) : 0; }

void add_tensor(Sha256& hash, const std::string& name, const Tensor& t) {
  hash.add(fmt::format("{} {}\n", name, t.defined() ? t.describe() : "none"));
  if (t.defined()) hash.add(bytes_of(t.to(Device::cpu).contiguous()));
}

// The sweeps' settings: as they like if that is a small part of the budget, else smaller, at last as small as they can
// be. With them what they take.
std::pair<JacobianOptions, size_t> settle_sweeps(const Module& model, const RowLayout& layout, const Tensor& inputs,
                                                 size_t memory) {
  const auto bytes_with = [&](const JacobianOptions& options) {
    return measured_sweep_bytes(model, layout, inputs, options) * static_cast<size_t>(parts_at_once(model.device()));
  };
  if (const Device device = model.device(); device != Device::cpu)
    if (const size_t free = device_memory(device).free_bytes(); free > 0)
      memory = memory == 0 ? ntk_share_of(free) : std::min(memory, ntk_share_of(free));
  JacobianOptions options;
  size_t bytes = bytes_with(options);
  if (memory == 0 || bytes <= memory / 4) return {options, bytes};
  try {
    options.memory = memory / 4;
    bytes = bytes_with(options);
    if (bytes <= memory / 4) return {options, bytes};
  } catch (const UsageError&) {
    // The estimate says that not even the smallest sweep fits; the planner decides by what it takes.
  }
  options = {.tile = 1, .classes = 1, .recompute = Recompute::always};
  return {options, bytes_with(options)};
}

}  // namespace

NtkComputation::NtkComputation(const Module& model, Subset subset, const Tensor& inputs, const Tensor& second,
                               NtkOptions options)
    : model_(model),
      subset_(std::move(subset)),
      inputs_(inputs.contiguous()),
      second_(second.defined() ? second.contiguous() : Tensor()),
      options_(std::move(options)) {
  require(!second_.defined() || second_.extent(0) > 0, "a kernel needs inputs [n, …] with n > 0, got {}",
          second_.shape().str());
  require_usage(
      options_.products == DType::float64 || (options_.products == DType::float32 && inputs_.dtype() == DType::float32),
      "products in {} are for models of float32, this one is {}", name_of(options_.products), name_of(inputs_.dtype()));
  // Products with J are a candidate for these purposes alone.
  size_t product_bytes = 0;
  if (options_.purpose == NtkPurpose::top_eigenvalues)
    product_bytes = measured_product_bytes(model_, subset_, inputs_, 1);
  if (options_.purpose == NtkPurpose::solve)
    product_bytes = measured_product_bytes(model_, subset_, inputs_, std::max<int64_t>(1, options_.vectors));
  const Device device = model_.device();
  const auto describe = [&](bool factored) {
    layout_ = plan_rows(model_, subset_, inputs_, factored);
    size_t sweep_bytes = 0;
    std::tie(sweeps_, sweep_bytes) = settle_sweeps(model_, layout_, inputs_, options_.memory);
    const JacobianPlan sweeps = plan_sweeps(model_, layout_, inputs_, sweeps_);
    const int64_t C = layout_.classes, R = options_.trace ? 1 : C;
    int64_t outer = 0;
    for (const FactoredLayer& layer : layout_.layers) outer += layer.outputs * (C / R) + layer.inputs / (R * R);
    problem_ = {.purpose = options_.purpose,
                .elements = options_.elements,
                .samples = inputs_.extent(0),
                .samples2 = extent_or_zero(second_),
                .rows = R,
                .columns = subset_.size(),
                .stored_rows = C,
                .cotangents = sweeps.rows,
                .stored = layout_.stored,
                .product_columns = layout_.dense * (C / R) + outer,
                .sample_extra = layout_.extra,
                .element = static_cast<int64_t>(size_of(inputs_.dtype())),
                .float_products = options_.products == DType::float32,
                .forward_flops = forward_flops(model_, inputs_.slice(0, 0, 1)),
                .sweep_bytes = sweep_bytes,
                .product_bytes = product_bytes,
                .sweep_samples = sweeps.tile * parts_at_once(device) * tiles_per_group,
                .threads = thread_count(),
                .vectors = options_.vectors,
                .iterations = options_.iterations,
                .memory = options_.memory,
                .on_device = device != Device::cpu,
                .device_memory = device == Device::cpu ? 0 : device_memory(device).free_bytes(),
                .file = !options_.progress.empty()};
  };
  describe(options_.factored && options_.representation != NtkRepresentation::primal);
  choice_ = plan_ntk(problem_, options_.representation);
  if (choice_.plan.representation == NtkRepresentation::primal && !layout_.layers.empty()) {
    const std::string reason = choice_.reason;
    describe(false);
    choice_ = plan_ntk(problem_, NtkRepresentation::primal);
    choice_.reason = reason;
  }
  require_usage(options_.products == DType::float64 || (choice_.plan.representation != NtkRepresentation::primal &&
                                                        choice_.plan.representation != NtkRepresentation::matrix_free),
                "the {} representation has no products in float32", name_of(choice_.plan.representation));
  require_usage(choice_.plan.representation == NtkRepresentation::primal || options_.progress.empty() ||
                    ranks_beside(options_.progress).empty(),
                "ranks have left sums of JᵀJ beside {}, which the {} representation does not use: ask for primal, or "
                "remove them",
                options_.progress, name_of(choice_.plan.representation));
}

std::string NtkComputation::key(const std::string& representation, const Tensor& targets) const {
  Sha256 hash;
  hash.add(fmt::format("{}\n{}\n", representation, row_bits(model_.device())));
  for (const Subset::Entry& e : subset_.entries) hash.add(e.name + "\n");
  for (const auto& [name, p] : model_.named_parameters()) add_tensor(hash, name, p->value);
  for (const auto& [name, b] : model_.named_buffers()) add_tensor(hash, name, b->value);
  add_tensor(hash, "inputs", inputs_);
  add_tensor(hash, "second", second_);
  add_tensor(hash, "targets", targets);
  return hash.hex();
}

int64_t NtkComputation::row_bytes() const {
  return (layout_.classes * layout_.stored + layout_.extra) * static_cast<int64_t>(size_of(inputs_.dtype()));
}

// Rows of the samples of tiles [from, to), computed or read, to where they are multiplied: the device of the model.
void NtkComputation::load(const Tensor& inputs, int64_t from, int64_t to, const Tiling& tiling, int64_t file_offset,
                          TileRows& out) {
  const int64_t R = options_.trace ? 1 : layout_.classes;
  const SampleRange samples = samples_of_tiles(from, to, tiling.extent, R, inputs.extent(0));
  out = {};
  out = {.tiling = tiling, .from = from, .to = to, .samples = samples};
  const Device device = model_.device();
  out.data.rows = Tensor({samples.size(), layout_.classes, layout_.stored}, inputs.dtype(), device);
  if (layout_.extra) out.data.extra = Tensor({samples.size(), layout_.extra}, inputs.dtype(), device);
  if (!file_) {
    compute_rows(model_, layout_, inputs, samples.first, samples.last, sweeps_, out.data);
    if (device == Device::cpu) return;  // there they are looked at when they are multiplied
    require_finite_rows(out.data.rows, samples.first * layout_.classes);
    if (layout_.extra) require_finite_rows(out.data.extra, samples.first);
    return;
  }
  const auto read = [&](Tensor to, int64_t offset) {
    if (device == Device::cpu) return file_->read(offset, mutable_bytes_of(to));
    Tensor here(to.shape(), to.dtype());
    file_->read(offset, mutable_bytes_of(here));
    to.copy_from(here.to(device));
  };
  for (int64_t s = 0; s < samples.size(); s++) {
    const Tensor rows = out.data.rows.slice(0, s, s + 1);
    const int64_t offset = file_offset + (samples.first + s) * row_bytes();
    read(rows, offset);
    if (layout_.extra) read(out.data.extra.slice(0, s, s + 1), offset + static_cast<int64_t>(rows.bytes()));
  }
}

NtkKernel NtkComputation::kernel() {
  const NtkPlan& plan = choice_.plan;
  require(plan.representation != NtkRepresentation::primal && plan.representation != NtkRepresentation::matrix_free,
          "the {} representation has no kernel", name_of(plan.representation));
  const int64_t R = options_.trace ? 1 : layout_.classes;
  NtkKernel kernel(inputs_.extent(0) * R, extent_or_zero(second_) * R);
  const bool symmetric = kernel.symmetric();
  const Tiling &rows = kernel.row_tiling(), &columns = kernel.column_tiling();
  const KernelRows how{.layout = &layout_, .trace = options_.trace, .products = options_.products};
  const Tensor& other = symmetric ? inputs_ : second_;
  sweeps_.title = options_.title.empty() ? "" : options_.title + ": rows";

  std::vector<char> done(static_cast<size_t>(kernel.tiles()), 0);
  std::optional<PieceFile> progress;
  std::vector<std::pair<int64_t, int64_t>> place;  // of tile number k
  for (int64_t i = 0; i < rows.count; i++)
    for (int64_t j = 0; j < (symmetric ? i + 1 : columns.count); j++) place.emplace_back(i, j);
  const auto tile_bytes = [&](int64_t k) {
    const auto [i, j] = place[static_cast<size_t>(k)];
    return std::as_writable_bytes(std::span(kernel.tile(i, j), static_cast<size_t>(kernel.tile_elements())));
  };
  if (!options_.progress.empty()) {
    const std::string what = fmt::format("dual 1 {} {} {}", options_.trace ? "trace" : "blocks", layout_.layers.size(),
                                         name_of(options_.products));
    progress.emplace(options_.progress, key(what), [&](int64_t k, std::span<const std::byte> bytes) {
      require(k >= 0 && k < kernel.tiles() && bytes.size() == tile_bytes(k).size(),
              "{} has a piece that does not belong to this kernel", options_.progress);
      std::copy(bytes.begin(), bytes.end(), tile_bytes(k).begin());
      resumed_ += done[static_cast<size_t>(k)] == 0;
      done[static_cast<size_t>(k)] = 1;
    });
  }
  const auto missing = [&](int64_t i, int64_t j) { return !done[static_cast<size_t>(kernel.index_of(i, j))]; };
  const auto any_missing = [&](int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
    for (int64_t i = i0; i < i1; i++)
      for (int64_t j = j0; j < (symmetric ? std::min(j1, i + 1) : j1); j++)
        if (missing(i, j)) return true;
    return false;
  };

  const int64_t second_offset = inputs_.extent(0) * row_bytes();
  if (plan.representation == NtkRepresentation::thin_file && any_missing(0, rows.count, 0, columns.count)) {
    auto file = std::make_unique<ScratchFile>(options_.progress);
    const auto fill = [&](const Tensor& inputs, const Tiling& tiling, int64_t offset) {
      for (int64_t from = 0; from < tiling.count; from++) {
        TileRows part;
        load(inputs, from, from + 1, tiling, 0, part);
        part.data.rows = part.data.rows.to(Device::cpu);
        if (layout_.extra) part.data.extra = part.data.extra.to(Device::cpu);
        for (int64_t s = 0; s < part.samples.size(); s++) {
          const int64_t at = offset + (part.samples.first + s) * row_bytes();
          const Tensor row = part.data.rows.slice(0, s, s + 1);
          file->write(at, bytes_of(row));
          if (layout_.extra)
            file->write(at + static_cast<int64_t>(row.bytes()), bytes_of(part.data.extra.slice(0, s, s + 1)));
        }
      }
    };
    fill(inputs_, rows, 0);
    if (!symmetric) fill(second_, columns, second_offset);
    file_ = std::move(file);
  }

  std::optional<Progress> shown;
  if (!options_.title.empty()) {
    shown.emplace(options_.title, kernel.tiles(), "tiles");
    if (resumed_) shown->advance(resumed_);
  }
  // Products of two groups, some tiles at a time.
  const auto multiply = [&](const TileRows& a, const TileRows& b) {
    const int64_t strip = std::max<int64_t>(1, ntk_tiles_per_step / std::max<int64_t>(1, b.to - b.from));
    for (int64_t from = a.from; from < a.to; from += strip) {
      const int64_t to = std::min(a.to, from + strip);
      if (!any_missing(from, to, b.from, b.to)) continue;
      check_interrupt();
      TileRows part = a;
      part.from = from, part.to = to;
      fill_tiles(how, part, b, missing, kernel);
      int64_t count = 0;
      for (int64_t i = from; i < to; i++)
        for (int64_t j = b.from; j < (symmetric ? std::min(b.to, i + 1) : b.to); j++) {
          if (!missing(i, j)) continue;
          const int64_t k = kernel.index_of(i, j);
          if (progress) progress->append(k, tile_bytes(k));
          done[static_cast<size_t>(k)] = 1;
          count++;
        }
      if (progress) progress->sync();
      if (shown) shown->advance(count);
      if (options_.on_step) options_.on_step();
    }
  };
  TileRows resident, streamed;
  for (int64_t from = 0; from < rows.count; from += plan.resident_tiles) {
    const int64_t to = std::min(rows.count, from + plan.resident_tiles);
    if (!any_missing(from, to, 0, columns.count)) continue;
    resident = {};
    load(inputs_, from, to, rows, 0, resident);
    if (symmetric && any_missing(from, to, from, to)) multiply(resident, resident);
    const int64_t end = symmetric ? from : columns.count;
    for (int64_t j = 0; j < end; j += plan.streamed_tiles) {
      const int64_t last = std::min(end, j + plan.streamed_tiles);
      if (!any_missing(from, to, j, last)) continue;
      streamed = {};
      load(other, j, last, columns, symmetric ? 0 : second_offset, streamed);
      multiply(resident, streamed);
    }
    streamed = {};
  }
  file_.reset();
  return kernel;
}

void NtkComputation::remove_progress() const {
  if (options_.progress.empty()) return;
  std::filesystem::remove(options_.progress);
  std::filesystem::remove(options_.progress + ".partial");  // of a snapshot that was being written as a run was killed
  for (const std::string& file : of_ranks_)
    for (const char* const end : {"", ".partial"}) std::filesystem::remove(file + end);
}

NtkKernel ntk(const Module& model, const Subset& subset, const Tensor& inputs, const Tensor& second,
              NtkOptions options) {
  NtkComputation computation(model, subset, inputs, second, std::move(options));
  NtkKernel kernel = computation.kernel();
  computation.remove_progress();
  return kernel;
}

}  // namespace fastntk
