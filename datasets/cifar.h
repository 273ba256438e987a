// CIFAR-10 and CIFAR-100 in their binary version: records of labels and 32×32 pixels, one colour plane after the other.
// https://www.cs.toronto.edu/~kriz/cifar.html
#pragma once
#include <string>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/part.h"

namespace fastntk {

/// How the records of a CIFAR file begin.
struct CifarLabels {
  int64_t bytes;    ///< labels per record: 1 in CIFAR-10; 2 (coarse, fine) in CIFAR-100
  int64_t which;    ///< the one to use, from 0
  int64_t classes;  ///< every label of this kind is below
};

/// The records of these files, plain or gzip, one after the other: images uint8 [N, 32, 32, 3]. A file that does not
/// end with a record, or a label that is too large, is an Error that names the file.
Dataset load_cifar_files(const std::string& name, const std::vector<std::string>& paths, const CifarLabels& labels,
                         std::vector<std::string> class_names = {});

/// 50,000 and 10,000 images in 10 classes: data_batch_1.bin … data_batch_5.bin and test_batch.bin, searched as
/// datasets/locate.h says, also in the subfolder cifar-10-batches-bin.
Dataset load_cifar10(const std::string& folder, Part part);
/// 50,000 and 10,000 images in 100 classes, or in their 20 superclasses: train.bin and test.bin, also in the subfolder
/// cifar-100-binary.
Dataset load_cifar100(const std::string& folder, Part part, bool superclasses = false);

}  // namespace fastntk
