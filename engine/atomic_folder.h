// A folder of files that appears complete or not at all.
#pragma once
#include <string>

namespace fastntk {

/// Files go to PATH.partial; commit() makes them durable under PATH. Without commit() the destructor removes what there
/// is; what a killed process left is removed by the next writer. Two writers of one path at a time are refused. A
/// UsageError where PATH exists.
class AtomicFolder {
 public:
  explicit AtomicFolder(std::string path);
  /// A folder's path without the slashes at its end, as path() has it.
  static std::string without_slash(std::string path);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  /// Where it will be, without a slash at the end.
  const std::string& path() const { return path_; }
  /// Where to write until commit().
  const std::string& partial() const { return partial_; }
  /// Gives the folder its name, on the disk when it returns. Its files must be on the disk.
  void commit();

 private:
  std::string path_, partial_;
  int descriptor_ = -1;
};

}  // namespace fastntk
