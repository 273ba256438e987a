// A look at a MATLAB 5 file before libmatio reads it.
#pragma once
#include <string>

namespace fastntk {

/// An Error that names the file unless it is a little-endian MATLAB 5 file whose parts fill it exactly, each of them an
/// array of real numbers, plain or compressed, with flags, at most 8 extents, a name of at most 63 characters and as
/// many elements as the extents say. Compressed arrays are inflated to the end, which compares their checksums.
/// (libmatio believes what the file says, allocates accordingly, does not look at checksums, and opens other formats as
/// well.) MATLAB, "MAT-File Format", level 5.
void check_mat_file(const std::string& path);

}  // namespace fastntk
