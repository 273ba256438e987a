#include "engine/atomic_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "engine/descriptor.h"
#include "engine/error.h"

namespace fastntk {
namespace {

namespace fs = std::filesystem;

void remove_contents(const std::string& folder) {
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    fs::remove_all(at->path(), error);
    if (error) break;
  }
  if (error) fail("cannot empty {}: {}", folder, error.message());
}

}  // namespace

std::string AtomicFolder::without_slash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

AtomicFolder::AtomicFolder(std::string path) : path_(without_slash(std::move(path))) {
  partial_ = path_ + ".partial";
  require_usage(!path_.empty(), "a folder to make has no name");
  require_usage(!fs::exists(path_), "{} exists; it is made in a folder of its own", path_);
  if (const fs::path parent = fs::path(path_).parent_path(); !parent.empty()) {
    std::error_code error;
    fs::create_directories(parent, error);
    require(!error, "cannot make {}: {}", parent.string(), error.message());
  }
  // Whoever finishes renames the folder that the next one may just have opened: it must still have its name once it is
  // locked.
  for (bool same = false; !same;) {
    if (mkdir(partial_.c_str(), 0777) != 0 && errno != EEXIST)
      fail("cannot make {}: {}", partial_, std::strerror(errno));
    descriptor_ = open(partial_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor_ < 0 && errno == ENOENT) continue;
    require(descriptor_ >= 0, "cannot open {}: {}", partial_, std::strerror(errno));
    try {
      lock_for_writing(descriptor_, path_);
    } catch (...) {
      close(descriptor_);
      throw;
    }
    same = leads_to(partial_, descriptor_);
    if (!same) close(std::exchange(descriptor_, -1));
  }
  try {
    remove_contents(partial_);
  } catch (...) {
    close(descriptor_);
    throw;
  }
}

AtomicFolder::~AtomicFolder() {
  if (descriptor_ < 0) return;
  std::error_code ignored;
  fs::remove_all(partial_, ignored);
  close(descriptor_);
}

void AtomicFolder::commit() {
  require(descriptor_ >= 0, "{} is written already", path_);
  // rename() would replace an empty folder that came meanwhile, which nobody misses.
  if (rename(partial_.c_str(), path_.c_str()) != 0) fail("cannot make {}: {}", path_, std::strerror(errno));
  close(std::exchange(descriptor_, -1));
  sync_folder_of(path_);
}

}  // namespace fastntk
