// The idx format of MNIST and its kin: unsigned bytes after a header that gives the extents, plain or compressed by
// gzip. http://yann.lecun.com/exdb/mnist
#pragma once
#include <string>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/part.h"

namespace fastntk {

/// One idx file of unsigned bytes with `rank` axes: uint8. Whatever is wrong with the file is an Error that names it.
Tensor load_idx_file(const std::string& path, int rank);

/// Grey images [N, H, W] from one file, labels [N] from another. `classes` 0 means: as many as the largest label tells.
Dataset load_idx(const std::string& name, const std::string& images_path, const std::string& labels_path,
                 int64_t classes = 0, std::vector<std::string> class_names = {});

// The loaders below search for their four files as datasets/locate.h says, also in a subfolder of the data set's name
// or in the one that torchvision keeps them in.

/// Fashion-MNIST, 60,000 and 10,000 images of 28×28 in 10 classes. Debian's package dataset-fashion-mnist has it.
Dataset load_fashion_mnist(const std::string& folder, Part part);
/// MNIST, whose files have the same names.
Dataset load_mnist(const std::string& folder, Part part);
/// Kuzushiji-MNIST, cursive hiragana in 10 classes; again the same names.
Dataset load_kmnist(const std::string& folder, Part part);
/// EMNIST, handwritten letters and digits: `split` is byclass (62 classes), bymerge (47), balanced (47), letters (26),
/// digits (10) or mnist (10); anything else is a UsageError. The files hold every image transposed; here they stand
/// upright. The labels of `letters` are published as 1-26 and are 0-25 here.
Dataset load_emnist(const std::string& folder, Part part, const std::string& split);

}  // namespace fastntk
