// Small valid files of every format, for the tests to read and to damage.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/tensor.h"

/// A PNG file of pixels [h, w, c] of 8 or 16 bits: colour types grey, grey + alpha, RGB or RGBA for c = 1 … 4. For 16
/// bits there are two bytes per sample, the higher one first. Interlaced, if asked for.
std::string png_bytes(const std::vector<uint8_t>& pixels, int64_t height, int64_t width, int64_t channels, int bits = 8,
                      bool interlaced = false);
/// A JPEG file of pixels uint8 [h, w, 1, 3 or 4]: grey, RGB or CMYK. Progressive, if asked for.
std::string jpeg_bytes(const std::vector<uint8_t>& pixels, int64_t height, int64_t width, int64_t channels,
                       int quality = 90, bool progressive = false);

/// A record of CIFAR-10 (one label) or CIFAR-100 (two): pixel p of channel c is (start + p + 85 c) mod 256.
std::string cifar_record(const std::vector<uint8_t>& labels, int start);

/// The images of an STL-10 file: the byte of image i, channel c, column x, row y is (start + i + 85 c + 3 x + y) mod
/// 256.
std::string stl10_images(int64_t count, int start);

/// The bytes of one array in a MATLAB 5 file: class 6 is double, 9 is uint8; elements as bytes.
std::string mat_array(const std::string& name, const std::vector<int32_t>& dims, int array_class,
                      const std::string& data, bool compressed);
/// The header of a MATLAB 5 file.
std::string mat_header();
/// An SVHN file of `count` images; element i of X is (i · 7 + i / 256) mod 256, y counts 1, 2, …, 10, 1, ….
std::string svhn_bytes(int32_t count, bool compressed);
