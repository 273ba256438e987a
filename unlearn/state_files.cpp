#include "unlearn/state_files.h"

#include "engine/file.h"
#include "engine/sha256.h"
#include "unlearn/flat_json.h"

namespace fastntk {

using nlohmann::json;

void write_manifest(const std::string& path, const Manifest& m) {
  json body = {{"format_version", m.format_version},
               {"program_version", m.program_version},
               {"blas_kernel_set", m.blas_kernel_set},
               {"settings", m.settings},
               {"files", m.file_hashes}};
  const std::string hash = sha256(body.dump());
  body["sha256"] = hash;
  write_file_atomically(path, body.dump(2) + "\n");
}

Manifest read_manifest(const std::string& path, int64_t version) {
  Manifest m;
  try {
    json body = parse_flat(read_file(path), path);
    m.format_version = integer(body.at("format_version"));
    require(m.format_version == version, "{}: the state is of format version {}, this program reads version {}", path,
            m.format_version, version);
    const std::string hash = body.at("sha256").get<std::string>();
    body.erase("sha256");
    require(hash == sha256(body.dump()), "{} is damaged: its hash is not that of its contents", path);
    m.program_version = body.at("program_version").get<std::string>();
    m.blas_kernel_set = body.at("blas_kernel_set").get<std::string>();
    m.settings = body.at("settings").get<std::map<std::string, std::string>>();
    m.file_hashes = body.at("files").get<std::map<std::string, std::string>>();
  } catch (const json::exception&) {
    fail("{} is damaged: it is not the manifest of a prepared state", path);
  }
  return m;
}

const std::string& setting(const Manifest& manifest, const std::string& name, const std::string& path) {
  const auto it = manifest.settings.find(name);
  require(it != manifest.settings.end(), "{} has no setting '{}'", path, name);
  return it->second;
}

std::string sha256_of(const Tensor& tensor) { return sha256(bytes_of(tensor.contiguous())); }

}  // namespace fastntk
