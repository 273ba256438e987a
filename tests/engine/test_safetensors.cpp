#include <catch2/catch.hpp>
#include <cstring>

#include "engine/safetensors.h"
#include "temporary_folder.h"

using namespace fastntk;

namespace {

// A file with this header, not padded.
std::string safetensors(const std::string& header, std::string_view data) {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data);
}

// The message of the refusal, less the path it must begin with.
std::string refusal(const TemporaryFolder& folder, const std::string& bytes) {
  const std::string path = folder.write("bad.safetensors", bytes);
  try {
    SafeTensors::load(path);
  } catch (const Error& e) {
    const std::string what = e.what();
    CHECK(what.starts_with(path + ": "));
    CHECK(what.find('\n') == std::string::npos);
    return what.substr(path.size() + 2);
  }
  return "no error";
}

Tensor bytes_counting(const Shape& shape, DType dtype) {
  Tensor t(shape, dtype);
  auto bytes = mutable_bytes_of(t);
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<std::byte>(i * 37 + 11);
  return t;
}

}  // namespace

TEST_CASE("safetensors round trip", "[safetensors]") {
  const TemporaryFolder folder;
  SafeTensors out;
  out.metadata = {{"format", "pt"}, {"z", "line\nbreak \"quoted\" é"}, {"", ""}};
  out.tensors = {{"labels", bytes_counting({5}, DType::uint8)},
                 {"conv1.weight", bytes_counting({4, 3, 3, 3}, DType::float32)},
                 {"empty", bytes_counting({0, 7}, DType::float32)},
                 {"count", bytes_counting({}, DType::int64)},
                 {"é \"x\"\n", bytes_counting({1, 2, 1, 2, 1, 2, 1, 2}, DType::float64)}};
  const std::string path = folder / "a.safetensors";
  out.save(path);
  const SafeTensors in = SafeTensors::load(path);
  CHECK(in.metadata == out.metadata);
  REQUIRE(in.tensors.size() == out.tensors.size());
  for (size_t i = 0; i < in.tensors.size(); i++) {
    const auto& [name, tensor] = in.tensors[i];
    CHECK(name == out.tensors[i].first);
    CHECK(tensor.dtype() == out.tensors[i].second.dtype());
    CHECK(tensor.shape() == out.tensors[i].second.shape());
    const auto a = bytes_of(tensor), b = bytes_of(out.tensors[i].second);
    CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));
  }
  REQUIRE(in.find("count") != nullptr);
  CHECK(in.find("count")->dtype() == DType::int64);
  CHECK(in.find("counts") == nullptr);

  const SafeTensorsHeader header = read_safetensors_header(path);
  CHECK(header.metadata == out.metadata);
  CHECK(header.data_start % 8 == 0);
  for (const TensorEntry& t : header.tensors) CHECK(t.begin % static_cast<int64_t>(size_of(t.dtype)) == 0);

  const std::string first = read_file(path);
  in.save(path);
  CHECK(read_file(path) == first);
  CHECK(folder.entries() == 1);
}

TEST_CASE("the bytes of a safetensors file are those of the reference implementation", "[safetensors]") {
  // Written by Python's safetensors 0.8.0, whose order is: by type, widest first, then by name.
  const std::string header =
      R"({"__metadata__":{"a":"2"},"c":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"F32","shape":[2,2],"data_offsets":[8,24]},"e":{"dtype":"F32","shape":[0,3],"data_offsets":[24,24]},)"
      R"("a":{"dtype":"U8","shape":[3],"data_offsets":[24,27]}})";
  const std::string one("\0\0\x80\x3f", 4);
  const std::string data = std::string("\1\0\0\0\0\0\0\0", 8) + one + one + one + one + "\1\1\1";
  const std::string reference = safetensors(header + std::string(-header.size() % 8, ' '), data);
  SafeTensors out;
  out.metadata = {{"a", "2"}};
  out.tensors = {{"c", Tensor::full({}, 1, DType::int64)},
                 {"b", Tensor::full({2, 2}, 1)},
                 {"e", Tensor::full({0, 3}, 1)},
                 {"a", Tensor::full({3}, 1, DType::uint8)}};
  const TemporaryFolder folder;
  out.save(folder / "a");
  CHECK(read_file(folder / "a") == reference);
}

TEST_CASE("views are saved as what they show", "[safetensors]") {
  const TemporaryFolder folder;
  SafeTensors out;
  out.tensors = {{"t", Tensor::from<float>({2, 3}, {1, 2, 3, 4, 5, 6}).transpose(0, 1)},
                 {"e", Tensor::full({1}, 7).expand({2, 2})}};
  out.save(folder / "a");
  const SafeTensors in = SafeTensors::load(folder / "a");
  CHECK(in.find("t")->to_vector<float>() == std::vector<float>{1, 4, 2, 5, 3, 6});
  CHECK(in.find("e")->to_vector<float>() == std::vector<float>{7, 7, 7, 7});
}

TEST_CASE("a safetensors file can be written in pieces", "[safetensors]") {
  const TemporaryFolder folder;
  const std::string path = folder / "jacobian.safetensors";
  SafeTensors whole;
  whole.metadata = {{"subset", "bn"}};
  whole.tensors = {{"ids", bytes_counting({3}, DType::int64)}, {"jacobian", bytes_counting({4, 2}, DType::float32)}};
  whole.save(folder / "whole");
  {
    SafeTensorsWriter writer(path, whole.metadata,
                             {{"ids", DType::int64, {3}}, {"jacobian", DType::float32, {4, 2}}, {"end", {}, {0}}});
    writer.append("ids", *whole.find("ids"));
    writer.append("jacobian", whole.find("jacobian")->slice(0, 0, 3));
    CHECK_THROWS_WITH(writer.commit(),
                      "cannot write " + path + ": the elements of tensor \"jacobian\" are not all there");
  }
  CHECK_FALSE(file_exists(path));
  SafeTensorsWriter writer(path, whole.metadata, {{"jacobian", DType::float32, {4, 2}}, {"ids", DType::int64, {3}}});
  REQUIRE(writer.layout().size() == 2);
  CHECK(writer.layout()[0].name == "ids");
  CHECK_THROWS_WITH(writer.append("jacobian", *whole.find("jacobian")),
                    path + ": elements of tensor \"jacobian\" came where those of \"ids\" were expected");
  writer.append("ids", *whole.find("ids"));
  CHECK_THROWS_WITH(writer.append("jacobian", Tensor::zeros({2}, DType::float64)),
                    path + ": tensor \"jacobian\" has the type float32, a part of float64 came");
  CHECK_THROWS_WITH(writer.append("jacobian", Tensor::zeros({9})),
                    path + ": tensor \"jacobian\" [4, 2] got more elements than it has");
  for (int i = 0; i < 4; i++) writer.append("jacobian", whole.find("jacobian")->slice(0, i, i + 1));
  CHECK_THROWS_WITH(writer.append("jacobian", Tensor::zeros({1})),
                    path + ": elements of \"jacobian\" came after all tensors were complete");
  writer.commit();
  const SafeTensors in = SafeTensors::load(path);
  CHECK(in.find("jacobian")->to_vector<float>() == whole.find("jacobian")->to_vector<float>());
  CHECK(in.find("ids")->to_vector<int64_t>() == whole.find("ids")->to_vector<int64_t>());
}

TEST_CASE("what cannot be written as safetensors is refused, and no file is left", "[safetensors]") {
  const TemporaryFolder folder;
  const std::string path = folder / "a";
  const auto save = [&](std::map<std::string, std::string> metadata, const std::vector<std::string>& names) {
    SafeTensors s;
    s.metadata = std::move(metadata);
    for (const std::string& name : names) s.tensors.emplace_back(name, Tensor::zeros({2}));
    s.save(path);
  };
  CHECK_THROWS_WITH(save({}, {"x", "x"}), "cannot write " + path + ": the tensor name \"x\" is used twice");
  CHECK_THROWS_WITH(save({}, {"__metadata__"}),
                    "cannot write " + path + ": the tensor name \"__metadata__\" is reserved");
  CHECK_THROWS_WITH(save({}, {"\xff"}), "cannot write " + path + ": the tensor name \"\\ufffd\" is not valid UTF-8");
  CHECK_THROWS_WITH(save({{"k", "\xff"}}, {}),
                    "cannot write " + path + ": the metadata value \"\\ufffd\" is not valid UTF-8");
  SafeTensors undefined;
  undefined.tensors.emplace_back("x", Tensor());
  CHECK_THROWS_WITH(undefined.save(path), "cannot write " + path + ": the tensor \"x\" is undefined");
  CHECK(folder.entries() == 0);
}

TEST_CASE("corrupt safetensors files are refused with one sentence", "[safetensors]") {
  const TemporaryFolder folder;
  const std::string f = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  const auto error = [&](const std::string& header, size_t data = 8) {
    return refusal(folder, safetensors(header, std::string(data, '\0')));
  };
  const auto tensor = [&](const std::string& fields, size_t data = 8) {
    return error("{\"x\":{" + fields + "}}", data);
  };
  CHECK(error("{\"x\":" + f + "}") == "no error");

  SECTION("length of the header") {
    CHECK(refusal(folder, "") == "a safetensors file begins with 8 bytes, this file has 0");
    CHECK(refusal(folder, "1234567") == "a safetensors file begins with 8 bytes, this file has 7");
    CHECK(refusal(folder, std::string(8, '\xff')) ==
          "not a safetensors file: its header would have 18446744073709551615 bytes");
    CHECK(refusal(folder, std::string("\x01\xe1\xf5\x05\0\0\0\0", 8)) ==
          "not a safetensors file: its header would have 100000001 bytes");
    CHECK(refusal(folder, std::string("\x05\0\0\0\0\0\0\0{}", 10)) ==
          "the header should have 5 bytes, the file has only 2 (truncated?)");
  }
  SECTION("JSON") {
    CHECK(error("") == "the header is not valid JSON from its byte 1 on");
    CHECK(error("{\"x\":" + f) == "the header is not valid JSON from its byte 54 on");
    CHECK(error("{\"x\":" + f + "}}") == "the header is not valid JSON from its byte 55 on");
    CHECK(error("{\"\xff\":1}") == "the header is not valid JSON from its byte 3 on");
    CHECK(error("[]") == "the header is a list, an object was expected");
    CHECK(error("null") == "the header is null, an object was expected");
    CHECK(error("7") == "the header is a number, an object was expected");
    CHECK(error("{\"x\":7}") == "the header's entry \"x\" is a number, an object was expected");
    CHECK(error("{\"x\":" + f + ",\"x\":" + f + "}") == "the header has two entries \"x\"");
    CHECK(error(R"({"__metadata__":{"a":1}})") == "the metadata's entry \"a\" is a number, a string was expected");
    CHECK(error(R"({"__metadata__":{"a":"1","a":"1"}})") == "the metadata have two entries \"a\"");
    CHECK(error(std::string(1000000, '[')) == "the header is a list, an object was expected");
    CHECK(error("{\"\\n" + std::string(300, 'n') + "\":0}") ==
          "the header's entry \"\\n" + std::string(99, 'n') + "\"… is a number, an object was expected");
  }
  SECTION("fields") {
    CHECK(tensor("") == "tensor \"x\" has no dtype");
    CHECK(tensor(R"("dtype":"F32","shape":[2])") == "tensor \"x\" has no data_offsets");
    CHECK(tensor(R"("dtype":"F32","dtype":"F32")") == "tensor \"x\" has its field dtype twice");
    CHECK(tensor(R"("size":1)") == "tensor \"x\" has a field \"size\"; dtype, shape and data_offsets were expected");
    CHECK(tensor(R"("dtype":["F32"])") == "the dtype of tensor \"x\" is a list, a string was expected");
    CHECK(tensor(R"("shape":"2")") == "the shape of tensor \"x\" is a string, a list of whole numbers was expected");
    CHECK(tensor(R"("shape":{})") == "the shape of tensor \"x\" is an object, a list of whole numbers was expected");
    CHECK(tensor(R"("shape":[[2]])") == "the shape of tensor \"x\" holds a list, a whole number was expected");
    CHECK(tensor(R"("shape":[2.0])") ==
          "the shape of tensor \"x\" holds the number \"2.0\", a whole number was expected");
    CHECK(tensor(R"("shape":[true])") == "the shape of tensor \"x\" holds a truth value, a whole number was expected");
    CHECK(tensor(R"("dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8])") ==
          "tensor \"x\" has the type \"F8_E4M3\"; F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL can be read");
    CHECK(tensor(R"("dtype":"BF16","shape":[4],"data_offsets":[0,8])") == "no error");
  }
  SECTION("shapes") {
    CHECK(tensor(R"("shape":[-2])") == "the shape of tensor \"x\" has the negative number -2");
    CHECK(tensor(R"("shape":[9223372036854775808])") ==
          "the shape of tensor \"x\" has 9223372036854775808, which is too large");
    const std::string huge = "4611686018427387904";
    CHECK(tensor(R"("dtype":"F32","shape":[)" + huge + ",4],\"data_offsets\":[0,0]") ==
          "tensor \"x\" has the shape [" + huge + ", 4], which has too many elements");
    CHECK(tensor(R"("dtype":"F32","shape":[0,)" + huge + "," + huge + "],\"data_offsets\":[0,0]", 0) ==
          "tensor \"x\" has the shape [0, " + huge + ", " + huge + "], which has too many elements");
    CHECK(tensor(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4])") ==
          "tensor \"x\" has more than 8 axes");
  }
  SECTION("offsets") {
    CHECK(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])") ==
          "tensor \"x\" (F32 [2]) needs 8 bytes, but its data_offsets are [0, 4]");
    CHECK(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])") ==
          "tensor \"x\" (F32 [2]) needs 8 bytes, but its data_offsets are [8, 0]");
    CHECK(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])") ==
          "the data_offsets of tensor \"x\" are not two numbers");
    CHECK(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[-8,0])") ==
          "the data_offsets of tensor \"x\" has the negative number -8");
    CHECK(tensor(R"("dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104])") ==
          "tensor \"x\" ends at byte 4398046511104 of the data, but the file has only 8 (truncated?)");
    const std::string g = R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})";
    CHECK(error("{\"x\":" + f + ",\"y\":" + g + "}") ==
          "tensor \"y\" begins at byte 4 of the data, inside the tensor before it");
    CHECK(error("{\"y\":" + g + "}") == "4 bytes of the data before tensor \"y\" belong to no tensor");
    CHECK(error("{\"x\":" + f + "}", 9) == "1 bytes at the end belong to no tensor");
    CHECK(error("{}", 8) == "8 bytes at the end belong to no tensor");
    CHECK(error("{\"x\":" + f + "}", 7) ==
          "tensor \"x\" ends at byte 8 of the data, but the file has only 7 (truncated?)");
  }
}

TEST_CASE("data that are not aligned in the file can be read, as by the reference implementation", "[safetensors]") {
  const TemporaryFolder folder;
  const std::string header = R"({"u":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                             R"("f":{"dtype":"F32","shape":[1],"data_offsets":[3,7]}})";
  const SafeTensors in =
      SafeTensors::load(folder.write("a", safetensors(header, std::string("\1\2\3\0\0\x80\x3f", 7))));
  CHECK(in.find("f")->item() == 1);
  CHECK(in.find("u")->to_vector<uint8_t>() == std::vector<uint8_t>{1, 2, 3});
}

TEST_CASE("no change of one byte of a safetensors header does harm", "[safetensors]") {
  const TemporaryFolder folder;
  const std::string bytes =
      safetensors(R"({"__metadata__":{"k":"v"},"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                  R"("y":{"dtype":"U8","shape":[3,1],"data_offsets":[8,11]}})",
                  std::string(11, '\0'));
  int refused = 0;
  for (size_t at = 0; at + 11 < bytes.size(); at++)
    for (const int value : {0, 1, 8, 0x20, 0x22, 0x2d, 0x30, 0x39, 0x5b, 0x7b, 0x7d, 0x7f, 0x80, 0xff}) {
      std::string changed = bytes;
      changed[at] = static_cast<char>(value);
      if (refusal(folder, changed) != "no error") refused++;
    }
  CHECK(refused > 1000);
  for (size_t size = 0; size < bytes.size(); size++) CHECK(refusal(folder, bytes.substr(0, size)) != "no error");
}
