// The architectures of this repository, family by family, and what their `infer` functions share.
#pragma once
#include "models/registry.h"

namespace fastntk {

std::vector<Architecture> resnet_architectures();         // resnet.cpp
std::vector<Architecture> preact_resnet_architectures();  // resnetv2.cpp
std::vector<Architecture> vgg_architectures();            // vgg.cpp
std::vector<Architecture> small_architectures();          // small_networks.cpp
std::vector<Architecture> vit_architectures();            // vit_architectures.cpp

/// The shape of a parameter that a checkpoint of `architecture` must have, of this rank. Error otherwise.
const Shape& shape_in(const NamedShapes& shapes, const std::string& name, int rank, const std::string& architecture);

/// The value of an option that is a number from `least` to `most`; UsageError otherwise.
double number_option(const ModelConfig& config, const std::string& name, double least, double most);

/// How many of PREFIX0SUFFIX, PREFIX1SUFFIX, … there are without a gap.
int64_t count_numbered(const NamedShapes& shapes, const std::string& prefix, const std::string& suffix);

}  // namespace fastntk
