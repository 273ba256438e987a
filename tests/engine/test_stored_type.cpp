#include "engine/stored_type.h"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/safetensors.h"
#include "engine/safetensors_index.h"
#include "engine/weights_file.h"
#include "temporary_folder.h"

using namespace fastntk;
using Catch::Contains;

namespace {

template <class Number>
Tensor decoded(const std::vector<Number>& stored, StoredType type) {
  Tensor out({static_cast<int64_t>(stored.size())}, memory_type(type));
  decode(std::as_bytes(std::span(stored)), type, out);
  return out;
}
uint16_t encoded(double value, StoredType type, DType from = DType::float32) {
  uint16_t bits = 0;
  const auto bytes = encode(Tensor::scalar(value, from), type, "x");
  std::memcpy(&bits, bytes.data(), 2);
  return bits;
}

constexpr StoredType f16 = StoredType::f16, bf16 = StoredType::bf16;

}  // namespace

TEST_CASE("every float16 comes back from float32 as it was, and between two the nearer is taken", "[stored]") {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); i++) all[i] = static_cast<uint16_t>(i);
  const auto values = decoded(all, f16).to_vector<float>();
  CHECK(values[0x3C00] == 1);
  CHECK(values[0xC000] == -2);
  CHECK(values[0x7BFF] == 65504);
  CHECK(values[0x0400] == std::ldexp(1.F, -14));
  CHECK(values[0x0001] == std::ldexp(1.F, -24));
  CHECK(values[0x7C00] == std::numeric_limits<float>::infinity());
  CHECK(std::isnan(values[0x7C01]));
  CHECK(std::signbit(values[0x8000]));
  int wrong = 0;
  for (size_t i = 0; i < all.size(); i++)
    if (!std::isnan(values[i]) && encoded(values[i], f16) != i) wrong++;
  // Halfway to the next, and a little to either side of it.
  for (size_t i = 0; i < 0x7BFF; i++) {
    const float middle = (values[i] + values[i + 1]) / 2;
    if (encoded(middle, f16) != i + (i & 1)) wrong++;
    if (encoded(std::nextafter(middle, 0.F), f16) != i) wrong++;
    if (encoded(std::nextafter(middle, 1e9F), f16) != i + 1) wrong++;
  }
  CHECK(wrong == 0);
  CHECK((encoded(std::nan(""), f16) & 0x7C00) == 0x7C00);
  CHECK((encoded(std::nan(""), f16) & 0x03FF) != 0);
  CHECK(encoded(65519, f16) == 0x7BFF);
  CHECK(encoded(std::numeric_limits<double>::infinity(), f16) == 0x7C00);
  CHECK(encoded(1.5, f16, DType::float64) == 0x3E00);
}

TEST_CASE("bfloat16 is the upper half of float32, rounded to nearest, ties to even", "[stored]") {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); i++) all[i] = static_cast<uint16_t>(i);
  const auto values = decoded(all, bf16).to_vector<float>();
  CHECK(values[0x3F80] == 1);
  int wrong = 0;
  for (size_t i = 0; i < all.size(); i++)
    if (!std::isnan(values[i]) && encoded(values[i], bf16) != i) wrong++;
  for (uint32_t i = 0x3000; i < 0x5000; i++) {
    const auto middle = std::bit_cast<float>(i << 16 | 0x8000);
    if (encoded(middle, bf16) != i + (i & 1)) wrong++;
    if (encoded(std::bit_cast<float>(i << 16 | 0x7FFF), bf16) != i) wrong++;
    if (encoded(std::bit_cast<float>(i << 16 | 0x8001), bf16) != i + 1) wrong++;
  }
  CHECK(wrong == 0);
  CHECK(std::isnan(decoded(std::vector<uint16_t>{encoded(std::nan(""), bf16)}, bf16).to_vector<float>()[0]));
}

TEST_CASE("integers are widened, and truth values are 0 and 1", "[stored]") {
  CHECK(decoded(std::vector<int32_t>{INT32_MIN, 7}, StoredType::i32).to_vector<int64_t>() ==
        std::vector<int64_t>{INT32_MIN, 7});
  CHECK(decoded(std::vector<int16_t>{INT16_MIN, 7}, StoredType::i16).to_vector<int64_t>() ==
        std::vector<int64_t>{INT16_MIN, 7});
  CHECK(decoded(std::vector<int8_t>{-128, 7}, StoredType::i8).to_vector<int64_t>() == std::vector<int64_t>{-128, 7});
  CHECK(decoded(std::vector<uint8_t>{0, 1, 2}, StoredType::boolean).to_vector<uint8_t>() ==
        std::vector<uint8_t>{0, 1, 1});
  CHECK(stored_type("BF16") == bf16);
  CHECK(!stored_type("F8_E4M3").has_value());
}

TEST_CASE("what a stored type cannot hold is refused by name", "[stored]") {
  const Tensor large = Tensor::from<float>({3}, {1, -65520, 2});
  CHECK_THROWS_WITH(encode(large, f16, "\"w\""), "element 1 of \"w\" is -65520, too large for F16");
  CHECK_NOTHROW(encode(large, bf16, "w"));
  CHECK_THROWS_WITH(encode(Tensor::scalar(3.4e38), bf16, "w"), Contains("too large for BF16"));
  CHECK_THROWS_WITH(encode(Tensor::scalar(1e39, DType::float64), StoredType::f32, "w"), Contains("too large for F32"));
  CHECK_THROWS_WITH(encode(Tensor::scalar(1, DType::int64), f16, "w"), "w of type int64 cannot be stored as F16");
}

TEST_CASE("safetensors are written in any type of floating point and read back", "[safetensors]") {
  const TemporaryFolder folder;
  SafeTensors out{{{"k", "v"}},
                  {{"n", Tensor::from<int64_t>({1}, {5})}, {"x", Tensor::from<float>({3}, {1, -0.5F, 3})}}};
  for (const StoredType type : {StoredType::f64, StoredType::f32, f16, bf16}) {
    const std::string path = folder / "a.safetensors";
    out.save(path, type);
    const SafeTensorsHeader header = read_safetensors_header(path);
    CHECK(header.tensors[1].stored == type);
    CHECK(header.tensors[1].end - header.tensors[1].begin == static_cast<int64_t>(3 * size_of(type)));
    const SafeTensors in = SafeTensors::load(path);
    CHECK(in.metadata == out.metadata);
    CHECK(in.find("n")->to_vector<int64_t>() == std::vector<int64_t>{5});
    CHECK(in.find("x")->to(DType::float64).to_vector<double>() == std::vector<double>{1, -0.5, 3});
    // The same parser on bytes in memory.
    const std::string bytes = read_file(path);
    CHECK(parse_safetensors_header(std::as_bytes(std::span(bytes)), "a").tensors.size() == 2);
  }
  out.tensors[1].second = Tensor::full({2}, 1e6);
  const TemporaryFolder other;
  CHECK_THROWS_WITH(out.save(other / "b", f16), Contains("\"x\"") && Contains("too large for F16"));
  CHECK(other.entries() == 0);
}

TEST_CASE("safetensors in shards are written and read as one", "[safetensors]") {
  const TemporaryFolder folder;
  const std::string index = folder / "m.safetensors.index.json";
  SafeTensors out{{{"k", "v"}}, {}};
  for (const char* name : {"a", "b", "c", "d"}) out.tensors.emplace_back(name, Tensor::full({10}, name[0]));
  save_sharded(index, out, 80);
  CHECK(folder.entries() == 3);
  CHECK(file_exists(folder / "m-00002-of-00002.safetensors"));
  const SafeTensors in = load_weights(index);
  CHECK(in.metadata == out.metadata);
  REQUIRE(in.tensors.size() == 4);
  for (size_t i = 0; i < 4; i++) {
    CHECK(in.tensors[i].first == out.tensors[i].first);
    CHECK(in.tensors[i].second.to_vector<float>() == out.tensors[i].second.to_vector<float>());
  }
  CHECK(list_weights(index).format == "safetensors in 2 shards");
  CHECK_THROWS_AS(save_sharded(folder / "m.json", out, 80), UsageError);

  SECTION("shards that are not what the index says") {
    const std::string shard = folder / "m-00002-of-00002.safetensors";
    SafeTensors changed = SafeTensors::load(shard);
    changed.tensors[1].first = "e";
    changed.save(shard);
    CHECK_THROWS_WITH(load_weights(index), Contains(shard + ": has the tensor \"e\", which " + index));
    changed.tensors.pop_back();
    changed.save(shard);
    CHECK_THROWS_WITH(load_weights(index), Contains(shard + ": lacks the tensor \"d\", which " + index));
    SafeTensors{{{"k", "w"}}, {{"c", Tensor::zeros({1})}, {"d", Tensor::zeros({1})}}}.save(shard);
    CHECK_THROWS_WITH(load_weights(index), shard + R"(: has the metadata "k" = "w", another shard has "v")");
    std::filesystem::remove(shard);
    CHECK_THROWS_WITH(load_weights(index), Contains(shard));
  }
}

TEST_CASE("malformed indices of shards are refused with one sentence", "[safetensors]") {
  const auto refusal = [](const std::string& text) -> std::string {
    try {
      parse_shard_index(text, "the index");
    } catch (const Error& e) {
      CHECK(std::string(e.what()).starts_with("the index: "));
      return std::string(e.what()).substr(11);
    }
    return "no error";
  };
  const std::string not_one = "not the index of a sharded safetensors file: ";
  CHECK(refusal(R"({"weight_map":{"a":"f"},"metadata":{"total_size":3,"x":1,"y":"z"}})") == "no error");
  CHECK(refusal("") == not_one + "it is no valid JSON");
  CHECK(refusal("{") == not_one + "it is no valid JSON");
  CHECK(refusal(std::string(100000, '[')) == not_one + "it is no valid JSON");
  CHECK(refusal("[]") == not_one + "it is no JSON object");
  CHECK(refusal("{}") == not_one + "it has no weight_map");
  CHECK(refusal(R"({"weight_map":[]})") == "its weight_map is array, an object was expected");
  CHECK(refusal(R"({"weight_map":{"a":1}})") == "the entry \"a\" of its weight_map is number, a string was expected");
  CHECK(refusal(R"({"weight_map":{},"metadata":3})") == "its metadata is number, an object was expected");
  for (const char* file : {"../f", "/etc/passwd", "..", "", "a\\\\b"})
    CHECK(refusal(std::string(R"({"weight_map":{"a":")") + file + "\"}}")
              .ends_with("the name of a file in the same folder was expected"));
}
