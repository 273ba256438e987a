// Data sets by name, for command lines and configurations. A program can add its own.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/part.h"

namespace fastntk {

/// What a loader is told.
struct DatasetRequest {
  std::string argument;     ///< what follows the name and a colon: "a,b" in "idx:a,b"
  std::string folder;       ///< where to look for files; empty if the user named no place
  Part part = Part::train;  ///< which part of the data set
};
using DatasetLoader = std::function<Dataset(const DatasetRequest&)>;

struct RegisteredDataset {
  std::string name;
  std::string help;  ///< one line for --help
  DatasetLoader load;
};

/// Makes `name` (and "name:argument") known to load_dataset. A name that is taken already is an Error.
void register_dataset(RegisteredDataset entry);
/// All names, in alphabetical order: those of this folder's formats, and what was registered.
std::vector<RegisteredDataset> registered_datasets();

/// Loads "name", "name:argument", or a tensor file by its path. An unknown name is a UsageError that lists the known.
Dataset load_dataset(const std::string& text, const std::string& folder = {}, Part part = Part::train);

}  // namespace fastntk
