// Many image files, decoded when they are asked for.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "datasets/image_file.h"

namespace fastntk {

/// JPEG and PNG files of any sizes, of which the headers are known. Decoding may be done from several threads.
class ImageFiles {
 public:
  /// Reads the headers, on all threads; the first file that is no image is an Error.
  explicit ImageFiles(std::vector<std::string> paths);

  int64_t count() const { return static_cast<int64_t>(paths_.size()); }
  const std::string& path(int64_t index) const { return paths_[static_cast<size_t>(index)]; }
  /// All have the same number of channels: 1 if every file is grey, else 3, grey ones being repeated.
  ImageSize size(int64_t index) const;
  /// uint8 [height, width, channels] of size(index); a file that has changed since is an Error.
  Tensor decode(int64_t index) const;

 private:
  std::vector<std::string> paths_;
  std::vector<ImageSize> sizes_;  // as the headers say
  int64_t channels_ = 1;
};

}  // namespace fastntk
