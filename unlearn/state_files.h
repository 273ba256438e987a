// The manifest of a prepared state: what it says of itself, and the hashes of the files that are written once.
#pragma once
#include <map>
#include <string>

#include "engine/tensor.h"

namespace fastntk {

/// What a state says of itself.
struct Manifest {
  int64_t format_version = 0;
  std::string program_version, blas_kernel_set;
  std::map<std::string, std::string> settings;
  std::map<std::string, std::string> file_hashes;  ///< SHA-256 by name
};
void write_manifest(const std::string& path, const Manifest& manifest);
/// Error when the manifest is damaged (it carries its own hash) or of another version than `version`.
Manifest read_manifest(const std::string& path, int64_t version);
/// The setting of this name; Error naming the file if there is none.
const std::string& setting(const Manifest& manifest, const std::string& name, const std::string& path);

/// SHA-256 of the elements of a contiguous tensor.
std::string sha256_of(const Tensor& tensor);

}  // namespace fastntk
