// Tensors in the files of torch.save (.pth, .pt), since torch 1.6: a zip archive with a pickle, "data.pkl", and the
// bytes of every storage, "data/0", "data/1", …  No code of the file is run: see engine/pickle.h.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "engine/stored_type.h"
#include "engine/zip_archive.h"

namespace fastntk {

/// A tensor as the pickle describes it: a view of a storage.
struct TorchTensor {
  std::string name;
  StoredType type = StoredType::f32;
  Shape shape, strides;
  int64_t offset = 0;   ///< of the first element in the storage
  std::string storage;  ///< its key
  int64_t storage_elements = 0;
};

/// The tensors of the state dict in a pickle ("data.pkl"), in its order. The state dict is the dictionary that holds
/// tensors: the outermost one, or one inside it, under "state_dict", "model", "model_state_dict", or whatever is the
/// only one. Its entries that are no tensors are left out. Error naming what is not understood, and where shape,
/// strides and offset of a tensor lead outside its storage.
std::vector<TorchTensor> parse_torch_pickle(std::span<const std::byte> pickle, const std::string& source);

/// The archive of a torch file.
class TorchFile {
 public:
  explicit TorchFile(ZipArchive archive);

  const std::string& source() const { return archive_.source(); }
  const std::vector<TorchTensor>& tensors() const { return tensors_; }
  /// The elements, in the types of memory_type. Tensors that share a storage in the file share it in memory.
  std::vector<std::pair<std::string, Tensor>> load() const;

 private:
  ZipArchive archive_;
  std::string folder_;  // of all entries: "archive", or the name of the file once written
  std::vector<TorchTensor> tensors_;
};

}  // namespace fastntk
