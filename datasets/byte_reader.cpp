#include "datasets/byte_reader.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

namespace fastntk {
namespace {

constexpr std::array<std::byte, 2> gzip_magic{std::byte{0x1f}, std::byte{0x8b}};

}  // namespace

// A gzip file is one or more members, one after the other.
struct ByteReader::Inflater {
  Inflater() {
    constexpr int gzip_only = 15 + 16;
    require(inflateInit2(&stream, gzip_only) == Z_OK, "zlib cannot be started");
  }
  ~Inflater() { inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  z_stream stream{};
  std::array<std::byte, 1 << 16> input{};
  bool member_complete = false;
};

ByteReader::ByteReader(const std::string& path) : file_(path) {
  std::array<std::byte, 2> start{};
  if (file_.size() < static_cast<int64_t>(start.size())) return;
  file_.read(0, start);
  if (start == gzip_magic) inflater_ = std::make_unique<Inflater>();
}

ByteReader::~ByteReader() = default;

int64_t ByteReader::most_bytes() const {
  constexpr int64_t best_ratio = 1032;  // deflate cannot do better than 258 bytes for two bits
  return inflater_ ? best_ratio * file_.size() : file_.size();
}

size_t ByteReader::read(std::span<std::byte> out) {
  if (inflater_) return read_compressed(out);
  out = out.first(std::min(out.size(), static_cast<size_t>(file_.size() - at_)));
  file_.read(at_, out);
  at_ += static_cast<int64_t>(out.size());
  return out.size();
}

size_t ByteReader::read_compressed(std::span<std::byte> out) {
  z_stream& stream = inflater_->stream;
  size_t done = 0;
  while (done < out.size()) {
    if (stream.avail_in == 0) {
      const auto left = static_cast<size_t>(file_.size() - at_);
      const auto piece = std::span(inflater_->input).first(std::min(left, inflater_->input.size()));
      if (piece.empty()) {
        require(inflater_->member_complete, "{}: the gzip data end too early (truncated?)", path());
        return done;
      }
      file_.read(at_, piece);
      at_ += static_cast<int64_t>(piece.size());
      stream.next_in = reinterpret_cast<Bytef*>(piece.data());
      stream.avail_in = static_cast<uInt>(piece.size());
    }
    if (std::exchange(inflater_->member_complete, false)) {
      require(static_cast<std::byte>(*stream.next_in) == gzip_magic[0],
              "{}: the gzip data are complete, but other bytes follow them", path());
      inflateReset(&stream);
    }
    const size_t room = std::min<size_t>(out.size() - done, std::numeric_limits<uInt>::max());
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + done);
    stream.avail_out = static_cast<uInt>(room);
    const int status = inflate(&stream, Z_NO_FLUSH);
    require(status == Z_OK || status == Z_STREAM_END, "{}: the gzip data are corrupt ({})", path(),
            stream.msg ? stream.msg : zError(status));
    done += room - stream.avail_out;
    inflater_->member_complete = status == Z_STREAM_END;
  }
  return done;
}

void ByteReader::append_rest(std::vector<std::byte>& bytes) {
  // In pieces, because the length of what a gzip file holds is not known before.
  constexpr int64_t largest_piece = 1 << 20;
  const auto piece = static_cast<size_t>(std::clamp<int64_t>(most_bytes(), 1, largest_piece));
  for (;;) {
    const size_t before = bytes.size();
    bytes.resize(before + piece);
    const size_t got = read(std::span(bytes).subspan(before));
    bytes.resize(before + got);
    if (got < piece) return;
  }
}

}  // namespace fastntk
