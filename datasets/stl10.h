// STL-10 in its binary version: 96×96 images in colour, and their labels in a file of their own.
// https://cs.stanford.edu/~acoates/stl10
#pragma once
#include <string>

#include "datasets/dataset.h"
#include "datasets/part.h"

namespace fastntk {

/// The images of one file and the labels of another, plain or gzip: images uint8 [N, 96, 96, 3], stored one colour
/// plane after the other and every plane column by column; labels one byte each, 1-10 in the file and 0-9 here. Files
/// that do not hold whole images, as many labels as images, or labels of 1-10 are an Error that names the file.
Dataset load_stl10_files(const std::string& images, const std::string& labels);

/// 5,000 and 8,000 images in 10 classes: train_X.bin and train_y.bin, test_X.bin and test_y.bin, searched as
/// datasets/locate.h says, also in the subfolder stl10_binary.
Dataset load_stl10(const std::string& folder, Part part);

}  // namespace fastntk
