// Finding the files of a published data set.
#pragma once
#include <string>
#include <vector>

namespace fastntk {

/// The files of one part of a data set, which lie together in one folder.
struct DatasetFiles {
  std::string dataset;  ///< its name, for errors
  std::vector<std::string> names;
  std::vector<std::string> subfolders;  ///< of a folder that is searched; looked into after the folder itself
  std::string published;                ///< where users find the files, for errors
  bool compressed = true;               ///< each may also be there with .gz
};

/// The paths of the files, in the order of their names. `folder` is the only place searched if it is not empty: other
/// data must not be taken in its stead. Else these are searched in order: $FASTNTK_DATA, $XDG_DATA_HOME/fastntk
/// (~/.local/share/fastntk) and /usr/share/datasets, where Debian's packages are. If they are not found, the Error
/// names files and places.
std::vector<std::string> locate(const DatasetFiles& files, const std::string& folder);

}  // namespace fastntk
