// SVHN, street view house numbers, cropped digits: MATLAB 5 files with the arrays X and y, read by libmatio.
// http://ufldl.stanford.edu/housenumbers
#pragma once
#include <string>

#include "datasets/dataset.h"
#include "datasets/part.h"

namespace fastntk {

/// Images and labels of one file: X uint8 [32, 32, 3, N] in MATLAB's order (columns first) and y [N, 1] with the
/// digits, 10 standing for 0; here the labels are the digits, 0-9. Before libmatio sees the file it is checked as far
/// as its parts go: a MATLAB 5 file, little-endian, of numeric arrays alone, whole, its compressed parts sound to their
/// checksums. Anything else is an Error that names the file.
Dataset load_svhn_file(const std::string& path);

/// 73,257 and 26,032 images: train_32x32.mat and test_32x32.mat, searched as datasets/locate.h says, also in the
/// subfolder svhn.
Dataset load_svhn(const std::string& folder, Part part);

}  // namespace fastntk
