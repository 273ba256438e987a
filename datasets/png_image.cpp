#include <png.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "datasets/image_codec.h"

namespace fastntk {
namespace {

constexpr png_uint_32 longest_side = 1 << 20;
constexpr png_alloc_size_t largest_chunk = 8 << 20;  // of those that describe the image: profiles, texts

// libpng's two handles, what is left of the bytes, and the last error.
class PngImage final : public ImageDecoder {
 public:
  PngImage(std::span<const std::byte> bytes, std::string path) : left_(bytes), path_(std::move(path)) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    require(png_ != nullptr, "libpng cannot be started");
    info_ = png_create_info_struct(png_);
    if (info_ == nullptr) png_destroy_read_struct(&png_, nullptr, nullptr);
    require(info_ != nullptr, "libpng cannot be started");
    try {
      read_header(static_cast<int64_t>(bytes.size()));
    } catch (...) {
      png_destroy_read_struct(&png_, &info_, nullptr);
      throw;
    }
  }
  ~PngImage() override { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngImage(const PngImage&) = delete;
  PngImage& operator=(const PngImage&) = delete;

  ImageSize size() const override { return size_; }

  void decode(uint8_t* out) override {
    std::vector<png_bytep> rows(static_cast<size_t>(size_.height));
    for (size_t y = 0; y < rows.size(); y++) rows[y] = out + y * static_cast<size_t>(size_.width * size_.channels);
    guarded([&] {
      png_read_image(png_, rows.data());
      png_read_end(png_, nullptr);
    });
  }

 private:
  // Runs calls of libpng; an error in one of them comes back here by longjmp.
  template <class Calls>
  void guarded(const Calls& calls) {
    if (!completes(calls)) fail("{}: the PNG image is damaged ({})", path_, message_.data());
  }
  template <class Calls>
  bool completes(const Calls& calls) {
    if (setjmp(png_jmpbuf(png_))) return false;
    calls();
    return true;
  }

  void read_header(int64_t bytes) {
    guarded([&] {
      png_set_read_fn(png_, this, on_read);
      png_set_user_limits(png_, longest_side, longest_side);
      png_set_chunk_malloc_max(png_, largest_chunk);
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION  // no fuzzer finds checksums
      png_set_crc_action(png_, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
#endif
      png_read_info(png_, info_);
    });
    // deflate makes at most 1032 bytes of one, and a byte holds at most 8 pixels.
    const int64_t bits = png_get_bit_depth(png_, info_) * png_get_channels(png_, info_);
    check_image_size(path_, png_get_image_height(png_, info_), png_get_image_width(png_, info_),
                     bytes * 1032 * 8 / bits);
    guarded([&] {
      png_set_expand(png_);  // palettes to RGB, grey of fewer bits to 8
      png_set_scale_16(png_);
      png_set_strip_alpha(png_);
      png_set_interlace_handling(png_);
      png_read_update_info(png_, info_);
    });
    size_ = {png_get_image_height(png_, info_), png_get_image_width(png_, info_), png_get_channels(png_, info_)};
    require(size_.channels == 1 || size_.channels == 3, "{}: a PNG image of {} channels", path_, size_.channels);
  }

  static void on_read(png_structp png, png_bytep out, size_t count) {
    auto* const self = static_cast<PngImage*>(png_get_io_ptr(png));
    if (count > self->left_.size()) png_error(png, "its data end too early, truncated?");
    std::memcpy(out, self->left_.data(), count);
    self->left_ = self->left_.subspan(count);
  }
  [[noreturn]] static void on_error(png_structp png, png_const_charp message) {
    auto* const self = static_cast<PngImage*>(png_get_error_ptr(png));
    std::snprintf(self->message_.data(), self->message_.size(), "%s", message);
    png_longjmp(png, 1);
  }
  static void on_warning(png_structp, png_const_charp) {}  // about chunks that do not change the pixels

  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  std::span<const std::byte> left_;
  std::string path_;
  ImageSize size_;
  std::array<char, 200> message_{};
};

}  // namespace

std::unique_ptr<ImageDecoder> open_png(std::span<const std::byte> bytes, const std::string& path) {
  return std::make_unique<PngImage>(bytes, path);
}

}  // namespace fastntk
