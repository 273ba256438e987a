#include "datasets/locate.h"

#include <fmt/ranges.h>

#include <cstdlib>
#include <optional>

#include "engine/error.h"
#include "engine/file.h"

namespace fastntk {
namespace {

// The value of an environment variable; empty if it is not set.
std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value ? value : "";
}

std::vector<std::string> standard_folders() {
  std::vector<std::string> folders;
  if (const std::string named = environment("FASTNTK_DATA"); !named.empty()) folders.push_back(named);
  if (const std::string data = environment("XDG_DATA_HOME"); !data.empty())
    folders.push_back(data + "/fastntk");
  else if (const std::string home = environment("HOME"); !home.empty())
    folders.push_back(home + "/.local/share/fastntk");
  folders.emplace_back("/usr/share/datasets");
  return folders;
}

std::optional<std::vector<std::string>> files_in(const std::string& folder, const DatasetFiles& files) {
  std::vector<std::string> paths;
  for (const std::string& name : files.names) {
    const std::string plain = folder + "/" + name, zipped = plain + ".gz";
    if (file_exists(plain))
      paths.push_back(plain);
    else if (files.compressed && file_exists(zipped))
      paths.push_back(zipped);
    else
      return std::nullopt;
  }
  return paths;
}

}  // namespace

std::vector<std::string> locate(const DatasetFiles& files, const std::string& folder) {
  std::vector<std::string> places;
  for (const std::string& base : folder.empty() ? standard_folders() : std::vector<std::string>{folder}) {
    places.push_back(base);
    for (const std::string& subfolder : files.subfolders) places.push_back(base + "/" + subfolder);
  }
  for (const std::string& place : places)
    if (auto paths = files_in(place, files)) return *paths;
  fail("the data set {} needs {}{}{} (published at {}); looked in {}{}", files.dataset, fmt::join(files.names, ", "),
       files.compressed ? ", plain or with .gz" : "", files.names.size() > 1 ? ", in one folder" : "", files.published,
       fmt::join(places, ", "), folder.empty() ? "; --data-folder or FASTNTK_DATA can name another" : "");
}

}  // namespace fastntk
