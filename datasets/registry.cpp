#include "datasets/registry.h"

#include <fmt/ranges.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <utility>

#include "datasets/cifar.h"
#include "datasets/idx.h"
#include "datasets/image_folder.h"
#include "datasets/image_list.h"
#include "datasets/stl10.h"
#include "datasets/svhn.h"
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

// "TRAIN" or "TRAIN,TEST": the one for this part.
std::vector<std::string> two_parts(const char* name, const char* what, const DatasetRequest& request) {
  auto paths = split_at_commas(request.argument);
  require_usage(!paths[0].empty() && paths.size() <= 2 && !paths.back().empty(),
                "{}:{} or {}:{},TEST_{} was expected, got \"{}:{}\"", name, what, name, what, what, name,
                request.argument);
  require_usage(request.part == Part::train || paths.size() == 2,
                "{}:{} names no {} for the test part; {}:{},TEST_{} does", name, request.argument, what, name, what,
                what);
  return paths;
}

Dataset load_tensors_by_argument(const DatasetRequest& request) {
  return load_tensor_file(two_parts("tensors", "FILE", request)[request.part == Part::train ? 0 : 1]);
}

Dataset load_list_by_argument(const DatasetRequest& request) {
  const auto files = two_parts("csv", "FILE", request);
  return request.part == Part::train ? load_image_list(files[0]) : load_image_list(files[1], files[0]);
}

Dataset load_folder_by_argument(const DatasetRequest& request) {
  namespace fs = std::filesystem;
  DatasetRequest both = request;
  const std::string& path = request.argument;
  if (path.find(',') == std::string::npos && fs::is_directory(path + "/train"))
    for (const char* const test : {"test", "val"})
      if (both.argument == path && fs::is_directory(path + "/" + test))
        both.argument = fmt::format("{0}/train,{0}/{1}", path, test);
  const auto folders = two_parts("folder", "FOLDER", both);
  return request.part == Part::train ? load_image_folder(folders[0]) : load_image_folder(folders[1], folders[0]);
}

Dataset load_cifar100_by_argument(const DatasetRequest& request) {
  require_usage(request.argument.empty() || request.argument == "superclasses",
                "cifar-100 or cifar-100:superclasses was expected, got \"cifar-100:{}\"", request.argument);
  return load_cifar100(request.folder, request.part, !request.argument.empty());
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
    add({"kmnist", "Kuzushiji-MNIST, 28x28 grey, 10 classes", [](const DatasetRequest& request) {
           refuse_argument("kmnist", request);
           return load_kmnist(request.folder, request.part);
         }});
    add({"emnist", "emnist:SPLIT: byclass, bymerge, balanced, letters, digits or mnist; 28x28 grey",
         [](const DatasetRequest& request) { return load_emnist(request.folder, request.part, request.argument); }});
    add({"cifar-10", "CIFAR-10, binary version, 32x32 RGB, 10 classes", [](const DatasetRequest& request) {
           refuse_argument("cifar-10", request);
           return load_cifar10(request.folder, request.part);
         }});
    add({"cifar-100", "CIFAR-100, binary version, 32x32 RGB, 100 classes; cifar-100:superclasses has 20",
         load_cifar100_by_argument});
    add({"stl-10", "STL-10, binary version, 96x96 RGB, 10 classes", [](const DatasetRequest& request) {
           refuse_argument("stl-10", request);
           return load_stl10(request.folder, request.part);
         }});
    add({"svhn", "SVHN, cropped digits, 32x32 RGB, 10 classes", [](const DatasetRequest& request) {
           refuse_argument("svhn", request);
           return load_svhn(request.folder, request.part);
         }});
    add({"folder", "folder:FOLDER[,TEST_FOLDER]: PNG and JPEG images, a folder per class; or FOLDER/train and /test",
         load_folder_by_argument});
    add({"csv", "csv:FILE[,TEST_FILE]: a list of images with the columns path, label and perhaps id",
         load_list_by_argument});
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
