// jpeglib.h needs size_t and FILE to be declared before it.
#include <cstddef>
#include <cstdio>

#include <jpeglib.h>

#include <jerror.h>
#include <setjmp.h>

#include <memory>
#include <utility>
#include <vector>

#include "datasets/image_codec.h"

namespace fastntk {
namespace {

// A progressive image may be sent in any number of scans, each of which costs a pass over the image; encoders use about
// ten.
constexpr int most_scans = 100;
// A block of 8×8 pixels takes at least one bit, and a block of the coarsest component covers up to 4×4 of them.
constexpr int64_t most_pixels_per_byte = 8 * 64 * 16;

// Warnings after which the pixels are still what the encoder wrote.
bool is_harmless(int code) {
  return code == JWRN_EXTRANEOUS_DATA || code == JWRN_ADOBE_XFORM || code == JWRN_JFIF_MAJOR || code == JWRN_BOGUS_ICC;
}

class JpegImage final : public ImageDecoder {
 public:
  JpegImage(std::span<const std::byte> bytes, std::string path) : path_(std::move(path)) {
    jpeg_.err = jpeg_std_error(&errors_);
    jpeg_.client_data = this;
    errors_.error_exit = on_error;
    errors_.emit_message = on_message;
    progress_.progress_monitor = on_progress;
    try {
      read_header(bytes);
    } catch (...) {
      jpeg_destroy_decompress(&jpeg_);
      throw;
    }
  }
  ~JpegImage() override { jpeg_destroy_decompress(&jpeg_); }
  JpegImage(const JpegImage&) = delete;
  JpegImage& operator=(const JpegImage&) = delete;

  ImageSize size() const override { return size_; }

  void decode(uint8_t* out) override {
    const bool inks = jpeg_.num_components == 4;
    const size_t row_bytes = static_cast<size_t>(size_.width * size_.channels);
    std::vector<JSAMPLE> row(inks ? static_cast<size_t>(size_.width) * 4 : 0);
    guarded([&] {
      jpeg_start_decompress(&jpeg_);
      while (jpeg_.output_scanline < jpeg_.output_height) {
        uint8_t* const pixels = out + jpeg_.output_scanline * row_bytes;
        JSAMPROW to = inks ? row.data() : pixels;
        jpeg_read_scanlines(&jpeg_, &to, 1);
        if (inks) to_rgb(row.data(), pixels);
      }
      jpeg_finish_decompress(&jpeg_);
    });
  }

 private:
  template <class Calls>
  void guarded(const Calls& calls) {
    if (!completes(calls)) fail("{}: the JPEG image is damaged ({})", path_, message_.data());
  }
  template <class Calls>
  bool completes(const Calls& calls) {
    if (setjmp(on_error_)) return false;
    calls();
    return true;
  }

  void read_header(std::span<const std::byte> bytes) {
    guarded([&] {
      jpeg_create_decompress(&jpeg_);
      jpeg_.progress = &progress_;
      jpeg_mem_src(&jpeg_, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
      jpeg_read_header(&jpeg_, TRUE);
    });
    require(!jpeg_.arith_code, "{}: a JPEG image with arithmetic coding; Huffman coding can be read", path_);
    require(jpeg_.num_components == 1 || jpeg_.num_components == 3 || jpeg_.num_components == 4,
            "{}: a JPEG image of {} components; 1, 3 and 4 can be read", path_, jpeg_.num_components);
    check_image_size(path_, jpeg_.image_height, jpeg_.image_width,
                     static_cast<int64_t>(bytes.size()) * most_pixels_per_byte);
    size_ = {jpeg_.image_height, jpeg_.image_width, jpeg_.num_components == 1 ? 1 : 3};
    jpeg_.out_color_space = jpeg_.num_components == 1 ? JCS_GRAYSCALE : jpeg_.num_components == 3 ? JCS_RGB : JCS_CMYK;
  }

  // Inks are stored inverted, 255 being none: each colour is its ink times black.
  void to_rgb(const JSAMPLE* inks, uint8_t* out) const {
    for (int64_t x = 0; x < size_.width; x++, inks += 4)
      for (int c = 0; c < 3; c++) *out++ = static_cast<uint8_t>((inks[c] * inks[3] + 127) / 255);
  }

  [[noreturn]] static void on_error(j_common_ptr jpeg) {
    auto* const self = static_cast<JpegImage*>(jpeg->client_data);
    jpeg->err->format_message(jpeg, self->message_.data());
    longjmp(self->on_error_, 1);
  }
  static void on_message(j_common_ptr jpeg, int level) {
    constexpr int warning = -1;
    if (level == warning && !is_harmless(jpeg->err->msg_code)) on_error(jpeg);
  }
  static void on_progress(j_common_ptr jpeg) {
    if (reinterpret_cast<j_decompress_ptr>(jpeg)->input_scan_number <= most_scans) return;
    auto* const self = static_cast<JpegImage*>(jpeg->client_data);
    std::snprintf(self->message_.data(), self->message_.size(), "more than %d scans", most_scans);
    longjmp(self->on_error_, 1);
  }

  jpeg_decompress_struct jpeg_{};
  jpeg_error_mgr errors_{};
  jpeg_progress_mgr progress_{};
  jmp_buf on_error_{};
  std::string path_;
  ImageSize size_;
  std::array<char, JMSG_LENGTH_MAX> message_{};
};

}  // namespace

std::unique_ptr<ImageDecoder> open_jpeg(std::span<const std::byte> bytes, const std::string& path) {
  return std::make_unique<JpegImage>(bytes, path);
}

}  // namespace fastntk
