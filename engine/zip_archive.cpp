#include "engine/zip_archive.h"

#include <zip.h>

#include "engine/file.h"
#include "engine/quoted.h"

namespace fastntk {
namespace {

constexpr int64_t most_entries = 1'000'000;

void discard(void* archive) {
  if (archive) zip_discard(static_cast<zip_t*>(archive));
}

std::string text_of(zip_error_t& error) {
  std::string text = zip_error_strerror(&error);
  zip_error_fini(&error);
  return text;
}

// Why the last operation on an archive or an entry failed.
std::string reason(zip_error_t* error) { return zip_error_strerror(error); }

zip_t* open_source(zip_source_t* source, zip_error_t& error, const std::string& name) {
  zip_t* const archive = source ? zip_open_from_source(source, ZIP_RDONLY, &error) : nullptr;
  if (!archive) {
    if (source) zip_source_free(source);
    fail("{}: cannot be read as a zip archive: {}", name, text_of(error));
  }
  return archive;
}

}  // namespace

ZipArchive::ZipArchive(const std::string& path)
    : source_(path), bytes_(InputFile(path).size()), archive_(nullptr, discard) {
  zip_error_t error;
  zip_error_init(&error);
  archive_.reset(open_source(zip_source_file_create(path.c_str(), 0, 0, &error), error, source_));
  list();
}

ZipArchive::ZipArchive(std::span<const std::byte> bytes, const std::string& source)
    : source_(source), bytes_(static_cast<int64_t>(bytes.size())), archive_(nullptr, discard) {
  zip_error_t error;
  zip_error_init(&error);
  archive_.reset(open_source(zip_source_buffer_create(bytes.data(), bytes.size(), 0, &error), error, source_));
  list();
}

void ZipArchive::list() {
  auto* const archive = static_cast<zip_t*>(archive_.get());
  const int64_t count = zip_get_num_entries(archive, 0);
  require(count <= most_entries, "{}: a zip archive of {} entries; at most {} are expected", source_, count,
          most_entries);
  for (int64_t i = 0; i < count; i++) {
    zip_stat_t stat;
    const bool known = zip_stat_index(archive, static_cast<zip_uint64_t>(i), ZIP_FL_ENC_RAW, &stat) == 0 &&
                       (stat.valid & ZIP_STAT_NAME) && (stat.valid & ZIP_STAT_SIZE);
    require(known, "{}: entry {} of the zip archive has no name or no size", source_, i);
    if (stat.size > static_cast<uint64_t>(INT64_MAX))
      fail("{}: entry {} of the zip archive would have {} bytes", source_, in_quotes(stat.name), stat.size);
    entries_.push_back({stat.name, static_cast<int64_t>(stat.size)});
    index_.emplace(stat.name, i);
  }
}

int64_t ZipArchive::find(const std::string& name) const {
  const auto at = index_.find(name);
  return at == index_.end() ? -1 : at->second;
}

void ZipArchive::read(int64_t index, std::span<std::byte> out) const {
  auto* const archive = static_cast<zip_t*>(archive_.get());
  const Entry& entry = entries_[static_cast<size_t>(index)];
  require(static_cast<int64_t>(out.size()) == entry.size, "{}: reading {} of the {} bytes of an entry", source_,
          out.size(), entry.size);
  zip_stat_t stat;
  zip_stat_index(archive, static_cast<zip_uint64_t>(index), 0, &stat);
  if (!(stat.valid & ZIP_STAT_COMP_METHOD) || stat.comp_method != ZIP_CM_STORE)
    fail("{}: entry {} of the zip archive is compressed, which torch never does", source_, in_quotes(entry.name));
  const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> file(
      zip_fopen_index(archive, static_cast<zip_uint64_t>(index), 0), zip_fclose);
  if (!file)
    fail("{}: entry {} of the zip archive cannot be read: {}", source_, in_quotes(entry.name),
         reason(zip_get_error(archive)));
  size_t at = 0;
  while (at < out.size()) {
    const int64_t got = zip_fread(file.get(), out.data() + at, out.size() - at);
    if (got <= 0)
      fail("{}: entry {} of the zip archive cannot be read: {}", source_, in_quotes(entry.name),
           got == 0 ? "it is shorter than its size says" : reason(zip_file_get_error(file.get())));
    at += static_cast<size_t>(got);
  }
  std::byte more{};  // the checksum is compared where the end is seen
  if (zip_fread(file.get(), &more, 1) != 0)
    fail("{}: entry {} of the zip archive is damaged: {}", source_, in_quotes(entry.name),
         reason(zip_file_get_error(file.get())));
}

std::vector<std::byte> ZipArchive::read(int64_t index) const {
  const Entry& entry = entries_[static_cast<size_t>(index)];
  // What is stored without compression is no larger than its archive: known before memory is taken for it.
  if (entry.size > bytes_)
    fail("{}: entry {} of the zip archive would have {} bytes", source_, in_quotes(entry.name), entry.size);
  std::vector<std::byte> bytes(static_cast<size_t>(entry.size));
  read(index, bytes);
  return bytes;
}

}  // namespace fastntk
