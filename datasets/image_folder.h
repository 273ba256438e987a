// Folders of images, a class per folder.
#pragma once
#include <string>

#include "datasets/dataset.h"

namespace fastntk {

/// The images of a folder that has a folder per class, as torchvision's ImageFolder takes it: classes are the folders'
/// names in the order of their bytes, images are files ending in .png, .jpg or .jpeg at any depth below, in the order
/// of class and path; the id of a sample is its place in this order. Names that begin with a dot are left out, and so
/// are other files. A class without images is an Error, as is a folder without classes.
///
/// With `class_folder`, the classes are those of that folder (the training part, say), and a class that is not among
/// them is an Error; a class may then have no images.
Dataset load_image_folder(const std::string& folder, const std::string& class_folder = {});

}  // namespace fastntk
