#include "datasets/csv.h"

#include "engine/error.h"

namespace fastntk {
namespace {

class Parser {
 public:
  Parser(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  std::vector<CsvRecord> parse() {
    constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
    if (text_.starts_with(byte_order_mark)) at_ = byte_order_mark.size();
    std::vector<CsvRecord> records;
    while (at_ < text_.size()) {
      if (end_of_line()) continue;
      records.push_back(record());
      const size_t expected = records.front().fields.size(), found = records.back().fields.size();
      require(found == expected, "{}: line {} has {} fields, the first record has {}", path_, records.back().line,
              found, expected);
    }
    return records;
  }

 private:
  // Passes over a line break if there is one here.
  bool end_of_line() {
    const size_t length = text_.substr(at_).starts_with("\r\n") ? 2 : text_.substr(at_).starts_with("\n") ? 1 : 0;
    at_ += length;
    line_ += length > 0;
    return length > 0;
  }

  CsvRecord record() {
    CsvRecord result{.fields = {}, .line = line_};
    for (;;) {
      result.fields.push_back(at_ < text_.size() && text_[at_] == '"' ? quoted() : plain());
      if (at_ == text_.size() || end_of_line()) return result;
      require(text_[at_] == ',', "{}: line {} has text after a closing quote", path_, line_);
      at_++;
    }
  }

  std::string plain() {
    const size_t start = at_;
    while (at_ < text_.size() && text_[at_] != ',' && text_[at_] != '\n' && !text_.substr(at_).starts_with("\r\n")) {
      require(text_[at_] != '"', "{}: line {} has a quote inside a field without quotes", path_, line_);
      check_character();
      at_++;
    }
    return std::string(text_.substr(start, at_ - start));
  }

  std::string quoted() {
    std::string field;
    const int64_t start = line_;
    for (at_++;; at_++) {
      require(at_ < text_.size(), "{}: a quote of line {} is never closed", path_, start);
      if (text_[at_] == '"') {
        at_++;
        if (at_ == text_.size() || text_[at_] != '"') return field;
      }
      check_character();
      line_ += text_[at_] == '\n';
      field += text_[at_];
    }
  }

  void check_character() const { require(text_[at_] != '\0', "{}: line {} has a NUL byte", path_, line_); }

  std::string_view text_;
  const std::string& path_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

}  // namespace

std::vector<CsvRecord> parse_csv(std::string_view text, const std::string& path) { return Parser(text, path).parse(); }

}  // namespace fastntk
