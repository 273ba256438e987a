// Libraries of CUDA that are loaded when they are first needed. cuBLAS and cuSOLVER have hundreds of megabytes: a tenth
// of a second at the start of every command, whatever device it runs on.
#pragma once
#include <dlfcn.h>

#include <string>

#include "engine/error.h"

namespace fastntk::cuda {

class Library {
 public:
  /// By its name with the major version, such as "libcublas.so.13": where the loader finds it, else where it was when
  /// this program was built. It stays loaded. Error if it is not there.
  explicit Library(std::string name) : name_(std::move(name)) {
    std::string reasons;
    for (const std::string& path : {name_, FASTNTK_CUDA_LIBRARIES "/" + name_}) {
      handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (handle_) break;
      reasons += (reasons.empty() ? "" : "; ") + std::string(dlerror());
    }
    require(handle_ != nullptr, "the CUDA library {} cannot be loaded: {}", name_, reasons);
  }
  template <class Function>
  Function* find(const char* symbol) const {
    void* const address = dlsym(handle_, symbol);
    require(address != nullptr, "the CUDA library {} has no function {}", name_, symbol);
    return reinterpret_cast<Function*>(address);
  }

 private:
  std::string name_;
  void* handle_ = nullptr;
};

}  // namespace fastntk::cuda

// What the headers call `function` may be a macro for a name with a version.
#define FASTNTK_TEXT_OF(x) #x
#define FASTNTK_TEXT(x) FASTNTK_TEXT_OF(x)
#define FASTNTK_FIND(library, function) (library).find<decltype(function)>(FASTNTK_TEXT(function))
