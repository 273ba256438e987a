// Names from files in error messages.
#pragma once
#include <string>
#include <string_view>

namespace fastntk {

/// A name from a file as it may stand in a one-line error: quoted, escaped, and not longer than can be read.
std::string in_quotes(std::string_view name);

}  // namespace fastntk
