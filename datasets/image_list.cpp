#include "datasets/image_list.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "datasets/csv.h"
#include "datasets/image_files.h"
#include "engine/file.h"
#include "engine/parse_number.h"

namespace fastntk {
namespace {

std::optional<int64_t> whole_number(const std::string& text) {
  const auto value = parse_number<int64_t>(text);
  return value && *value >= 0 ? value : std::nullopt;
}

bool are_numbers(const std::vector<std::string>& labels) {
  return std::all_of(labels.begin(), labels.end(), [](const std::string& l) { return whole_number(l).has_value(); });
}

}  // namespace

ImageList parse_image_list(std::string_view text, const std::string& path) {
  const std::vector<CsvRecord> records = parse_csv(text, path);
  require(!records.empty(), "{}: it is empty; a line with the columns path and label was expected", path);
  std::map<std::string, size_t> columns;
  for (size_t i = 0; i < records[0].fields.size(); i++)
    require(columns.emplace(records[0].fields[i], i).second, "{}: two of its columns have the same name", path);
  for (const char* const name : {"path", "label"})
    require(columns.contains(name), "{}: its first line names no column {}; path and label were expected", path, name);
  ImageList list;
  std::set<int64_t> seen;
  for (size_t i = 1; i < records.size(); i++) {
    const auto& [fields, line] = records[i];
    for (const char* const name : {"path", "label"})
      require(!fields[columns[name]].empty(), "{}: line {} has an empty {}", path, line, name);
    list.paths.push_back(fields[columns["path"]]);
    list.labels.push_back(fields[columns["label"]]);
    list.lines.push_back(line);
    if (!columns.contains("id")) continue;
    const auto id = whole_number(fields[columns["id"]]);
    require(id.has_value(), "{}: line {} has an id that is not a whole number", path, line);
    require(seen.insert(*id).second, "{}: line {} has the id {} for the second time", path, line, *id);
    list.ids.push_back(*id);
  }
  require(!list.paths.empty(), "{}: it lists no images", path);
  return list;
}

Dataset load_image_list(const std::string& path, const std::string& class_file) {
  const ImageList list = parse_image_list(read_file(path), path);
  const std::vector<std::string> reference =
      class_file.empty() ? list.labels : parse_image_list(read_file(class_file), class_file).labels;
  std::vector<std::string> names;
  int64_t classes = 0;
  if (are_numbers(reference)) {
    constexpr int64_t most_classes = 1 << 20;  // a slip of the pen must not make billions of them
    for (const std::string& label : reference) classes = std::max(classes, *whole_number(label));
    require(classes < most_classes, "{}: its largest label is {}; {} classes are possible",
            class_file.empty() ? path : class_file, classes, most_classes);
    classes++;
  } else {
    const std::set<std::string> sorted(reference.begin(), reference.end());
    names.assign(sorted.begin(), sorted.end());
    classes = static_cast<int64_t>(names.size());
  }
  std::vector<int64_t> labels;
  for (size_t i = 0; i < list.labels.size(); i++) {
    const std::string& text = list.labels[i];
    const auto at = std::lower_bound(names.begin(), names.end(), text);
    const auto label = names.empty()                      ? whole_number(text)
                       : at != names.end() && *at == text ? std::optional<int64_t>(at - names.begin())
                                                          : std::nullopt;
    require(label && *label < classes, "{}: line {} has a label that is not among those of {}", path, list.lines[i],
            class_file);
    labels.push_back(*label);
  }
  std::vector<std::string> paths;
  const std::filesystem::path base = std::filesystem::path(path).parent_path();
  for (const std::string& p : list.paths) paths.push_back((base / p).string());
  Dataset data("csv:" + path, std::make_shared<ImageFiles>(std::move(paths)),
               Tensor::from<int64_t>({static_cast<int64_t>(labels.size())}, labels), classes, names);
  return list.ids.empty() ? data : data.with_ids(list.ids);
}

}  // namespace fastntk
