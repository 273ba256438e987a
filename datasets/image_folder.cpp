#include "datasets/image_folder.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "datasets/image_files.h"
#include "engine/error.h"

namespace fastntk {
namespace {

namespace fs = std::filesystem;

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

// Calls what reads a folder; what the file system objects to becomes an Error.
template <class Work>
auto reading(const std::string& folder, const Work& work) {
  try {
    return work();
  } catch (const fs::filesystem_error& e) {
    fail("cannot read the folder {}: {}", folder, e.code().message());
  }
}

std::vector<std::string> classes_in(const std::string& folder) {
  return reading(folder, [&] {
    std::vector<std::string> names;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder))
      if (entry.is_directory() && !is_hidden(entry.path())) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    require(!names.empty(), "{}: it has no folders; a folder per class was expected, with its images", folder);
    return names;
  });
}

// Paths below the folder, in the order of their bytes.
std::vector<std::string> images_below(const std::string& folder) {
  return reading(folder, [&] {
    std::vector<std::string> paths;
    for (auto at = fs::recursive_directory_iterator(folder); at != fs::recursive_directory_iterator(); ++at) {
      if (is_hidden(at->path())) {
        at.disable_recursion_pending();
        continue;
      }
      if (at->is_regular_file() && has_image_name(at->path().string())) paths.push_back(at->path().string());
    }
    std::sort(paths.begin(), paths.end());
    return paths;
  });
}

// Position of `name` in the ascending `names`.
std::optional<int64_t> position_in(const std::vector<std::string>& names, const std::string& name) {
  const auto at = std::lower_bound(names.begin(), names.end(), name);
  if (at == names.end() || *at != name) return std::nullopt;
  return at - names.begin();
}

Tensor to_tensor(const std::vector<int64_t>& labels) {
  return Tensor::from<int64_t>({static_cast<int64_t>(labels.size())}, labels);
}

}  // namespace

Dataset load_image_folder(const std::string& folder, const std::string& class_folder) {
  const std::vector<std::string> here = classes_in(folder);
  const std::vector<std::string> classes = class_folder.empty() ? here : classes_in(class_folder);
  std::vector<std::string> paths;
  std::vector<int64_t> labels;
  for (const std::string& name : here) {
    const auto label = position_in(classes, name);
    require(label.has_value(), "{}: there is no class of this name in {}", folder + "/" + name, class_folder);
    const std::vector<std::string> images = images_below(folder + "/" + name);
    require(!images.empty() || !class_folder.empty(), "{}: no images of the class; files ending in .png, .jpg or .jpeg",
            folder + "/" + name);
    paths.insert(paths.end(), images.begin(), images.end());
    labels.resize(paths.size(), *label);
  }
  return Dataset("folder:" + folder, std::make_shared<ImageFiles>(paths), to_tensor(labels),
                 static_cast<int64_t>(classes.size()), classes);
}

}  // namespace fastntk
