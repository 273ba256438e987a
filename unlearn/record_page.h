// The record of a request as a page for people: one HTML file with its plots in it, which needs nothing else.
#pragma once
#include <string>

namespace fastntk {

/// An HTML document from the text of a record (RequestRecord::json()): what was asked and done, the plots of the probe,
/// hashes, time and memory, how to check it. Light or dark as the reader has it; no scripts, nothing loaded from
/// elsewhere. Error naming `source` where the text is not a record.
std::string record_page(const std::string& record, const std::string& source);

}  // namespace fastntk
