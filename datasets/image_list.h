// Lists of images in a CSV file.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/dataset.h"

namespace fastntk {

/// What a list says, before any image is looked at.
struct ImageList {
  std::vector<std::string> paths, labels;  ///< as written
  std::vector<int64_t> ids;                ///< empty if there is no such column
  std::vector<int64_t> lines;              ///< where each sample stands, for errors
};

/// A CSV text (csv.h): a line of column names, among them `path` and `label`, then a line per image. The column `id`,
/// if there is one, has whole numbers, all different. Other columns are left alone. `path` stands for the text in
/// errors.
ImageList parse_image_list(std::string_view text, const std::string& path);

/// The images that a CSV file lists. A path that is not absolute begins at the folder of the CSV file. Labels that are
/// all whole numbers are class numbers; else they are names of classes, which are numbered in the order of their bytes.
/// The ids of the samples are those of the column `id`, without it 0, 1, … as listed.
///
/// With `class_file`, names are numbered as in that CSV file, and a label that is not among them is an Error.
Dataset load_image_list(const std::string& path, const std::string& class_file = {});

}  // namespace fastntk
