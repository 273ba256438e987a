#include "datasets/registry.h"

#include <fmt/ranges.h>

#include <map>
#include <mutex>
#include <utility>

#include "datasets/tensor_file.h"

namespace fastntk {
namespace {

std::vector<std::string> split_at_commas(const std::string& text) {
  std::vector<std::string> parts{""};
  for (const char c : text)
    if (c == ',')
      parts.emplace_back();
    else
      parts.back() += c;
  return parts;
}

void refuse_argument(const char* name, const DatasetRequest& request) {
  require_usage(request.argument.empty(), "the data set {} takes no argument, got \"{}\"", name, request.argument);
}

Dataset load_idx_by_argument(const DatasetRequest& request) {
  const auto files = split_at_commas(request.argument);
  require_usage(files.size() == 2 || files.size() == 4,
                "idx:IMAGES,LABELS or idx:IMAGES,LABELS,TEST_IMAGES,TEST_LABELS was expected, got \"idx:{}\"",
                request.argument);
  require_usage(request.part == Part::train || files.size() == 4,
                "idx:{} names no files for the test part; idx:IMAGES,LABELS,TEST_IMAGES,TEST_LABELS does",
                request.argument);
  const size_t first = request.part == Part::train ? 0 : 2;
  return load_idx("idx", files[first], files[first + 1]);
}

Dataset load_tensors_by_argument(const DatasetRequest& request) {
  const auto files = split_at_commas(request.argument);
  require_usage(!files[0].empty() && files.size() <= 2,
                "tensors:FILE or tensors:FILE,TEST_FILE was expected, got \"tensors:{}\"", request.argument);
  require_usage(request.part == Part::train || files.size() == 2,
                "tensors:{} names no file for the test part; tensors:FILE,TEST_FILE does", request.argument);
  return load_tensor_file(files[request.part == Part::train ? 0 : 1]);
}

class Registry {
 public:
  Registry() {
    add({"fashion-mnist", "Fashion-MNIST, 28x28 grey, 10 classes", [](const DatasetRequest& request) {
           refuse_argument("fashion-mnist", request);
           return load_fashion_mnist(request.folder, request.part);
         }});
    add({"mnist", "MNIST, 28x28 grey, 10 classes", [](const DatasetRequest& request) {
           refuse_argument("mnist", request);
           return load_mnist(request.folder, request.part);
         }});
    add({"idx", "idx:IMAGES,LABELS[,TEST_IMAGES,TEST_LABELS]: idx files, plain or gzip", load_idx_by_argument});
    add({"tensors", "tensors:FILE[,TEST_FILE]: .safetensors with `input` [N, C, H, W] and `labels`, or .npy",
         load_tensors_by_argument});
  }
  void add(RegisteredDataset entry) {
    const std::lock_guard lock(mutex_);
    require(!entry.name.empty() && entry.name.find_first_of(": ,") == std::string::npos,
            "the name of a data set cannot be \"{}\"", entry.name);
    require(!entries_.contains(entry.name), "a data set {} is registered already", entry.name);
    std::string name = entry.name;
    entries_.emplace(std::move(name), std::move(entry));
  }
  std::vector<RegisteredDataset> all() {
    const std::lock_guard lock(mutex_);
    std::vector<RegisteredDataset> result;
    result.reserve(entries_.size());
    for (const auto& [name, entry] : entries_) result.push_back(entry);
    return result;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, RegisteredDataset> entries_;
};

Registry& registry() {
  static Registry instance;
  return instance;
}

}  // namespace

void register_dataset(RegisteredDataset entry) { registry().add(std::move(entry)); }

std::vector<RegisteredDataset> registered_datasets() { return registry().all(); }

Dataset load_dataset(const std::string& text, const std::string& folder, Part part) {
  const size_t colon = text.find(':');
  const std::string name = text.substr(0, colon);
  const std::string argument = colon == std::string::npos ? "" : text.substr(colon + 1);
  std::vector<std::string> names;
  for (const RegisteredDataset& entry : registered_datasets()) {
    if (entry.name == name) return entry.load({argument, folder, part});
    names.push_back(entry.name);
  }
  if (is_tensor_file(text)) return load_tensors_by_argument({text, folder, part});
  throw UsageError(fmt::format("there is no data set \"{}\"; known are {}, and paths to .safetensors and .npy files",
                               text, fmt::join(names, ", ")));
}

}  // namespace fastntk
