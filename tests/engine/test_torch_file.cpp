#include "engine/torch_file.h"

#include <catch2/catch.hpp>
#include <fstream>

#include "engine/file.h"
#include "engine/safetensors.h"
#include "engine/weights_file.h"
#include "temporary_folder.h"
#include "torch_writer.h"

using namespace fastntk;
using namespace torch_writer;

namespace {

const std::string six = torch_writer::bytes_of(std::vector<float>{1, 2, 3, 4, 5, 6});

std::string torch_file(const std::string& value, const std::string& storage = six) {
  return archive(
      {{"f/data.pkl", pickle(value)}, {"f/byteorder", "little"}, {"f/data/0", storage}, {"f/version", "3\n"}});
}

std::vector<std::pair<std::string, Tensor>> load(const std::string& bytes) {
  return TorchFile(ZipArchive(std::as_bytes(std::span(bytes)), "the file")).load();
}

std::string refusal(const std::string& bytes) {
  try {
    load(bytes);
  } catch (const Error& e) {
    const std::string what = e.what();
    CHECK(what.starts_with("the file: "));
    CHECK(what.find('\n') == std::string::npos);
    return what.substr(10);
  }
  return "no error";
}
std::string refused_view(const View& view) { return refusal(torch_file(state_dict({{"x", tensor(view)}}))); }

std::vector<float> only(const std::string& bytes) {
  const auto all = load(bytes);
  REQUIRE(all.size() == 1);
  return all[0].second.to_vector<float>();
}

}  // namespace

TEST_CASE("a file of torch.save has the tensors that torch wrote as safetensors", "[torch]") {
  const std::string folder = FASTNTK_SOURCE_DIR "/tests/golden/";
  const SafeTensors ours = load_weights(folder + "small.pth"), theirs = SafeTensors::load(folder + "small.safetensors");
  CHECK(ours.tensors.size() == 19);
  REQUIRE(ours.tensors.size() == theirs.tensors.size());
  for (const auto& [name, tensor] : ours.tensors) {
    CAPTURE(name);
    const Tensor* const expected = theirs.find(name);
    REQUIRE(expected);
    REQUIRE(tensor.describe() == expected->describe());
    const Tensor a = tensor.contiguous(), b = expected->contiguous();
    const auto x = fastntk::bytes_of(a), y = fastntk::bytes_of(b);
    CHECK(std::equal(x.begin(), x.end(), y.begin(), y.end()));
  }
  const WeightsListing listing = list_weights(folder + "small.pth"), other = list_weights(folder + "small.safetensors");
  CHECK(listing.format == "torch");
  CHECK(other.format == "safetensors");
  for (const auto& entry : listing.tensors) {
    CAPTURE(entry.name);
    const auto same =
        std::find_if(other.tensors.begin(), other.tensors.end(), [&](const auto& o) { return o.name == entry.name; });
    REQUIRE(same != other.tensors.end());
    CHECK(name_of(same->type) == std::string(name_of(entry.type)));
    CHECK(same->shape == entry.shape);
  }
}

TEST_CASE("strides and offsets of tensors in torch files are honoured", "[torch]") {
  const auto view = [](std::vector<int64_t> shape, std::vector<int64_t> strides, int64_t offset = 0) {
    return only(torch_file(
        state_dict({{"x", tensor({.offset = offset, .shape = std::move(shape), .strides = std::move(strides)})}})));
  };
  CHECK(view({2, 3}, {3, 1}) == std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK(view({3, 2}, {1, 3}) == std::vector<float>{1, 4, 2, 5, 3, 6});
  CHECK(view({2, 2}, {3, 2}, 0) == std::vector<float>{1, 3, 4, 6});
  CHECK(view({2}, {2}, 3) == std::vector<float>{4, 6});
  CHECK(view({}, {}, 5) == std::vector<float>{6});
  CHECK(view({2, 2}, {0, 1}, 1) == std::vector<float>{2, 3, 2, 3});
  CHECK(view({0, 4}, {4, 1}, 6).empty());
  CHECK(view({1, 2}, {99, 1}, 4) == std::vector<float>{5, 6});
}

TEST_CASE("a state dict is found where people put it", "[torch]") {
  const std::string dict = state_dict({{"x", tensor({})}}), other = state_dict({{"y", tensor({})}});
  const auto name = [](const std::string& value) {
    const auto all = load(torch_file(value));
    REQUIRE(all.size() == 1);
    return all[0].first;
  };
  CHECK(name(dict) == "x");
  CHECK(name(dictionary({{"epoch", integer(3)}, {"state_dict", dict}, {"optimizer", other}})) == "x");
  CHECK(name(dictionary({{"optimizer", other}, {"model", dict}})) == "x");
  CHECK(name(dictionary({{"weights", dict}, {"epoch", "N"}})) == "x");
  CHECK(name(dictionary({{"model", dictionary({{"state_dict", dict}})}})) == "x");
  CHECK(name(dictionary({{"lr", integer(3)}, {"x", tensor({})}})) == "x");
  CHECK(refusal(torch_file(dictionary({{"a", dict}, {"b", other}}))) ==
        R"(has several dictionaries of tensors ("a", "b", …), none of them under "state_dict" or "model")");
  CHECK(refusal(torch_file(dictionary({{"a", "N"}}))) == "holds no dictionary of tensors");
  CHECK(refusal(torch_file("K\1")) ==
        "holds an integer, a dictionary of tensors was expected; save model.state_dict()");
  CHECK(refusal(torch_file(tensor({}))) ==
        "holds torch._utils._rebuild_tensor_v2(…), a dictionary of tensors was expected; save model.state_dict()");
  CHECK(refusal(torch_file("}(K\1" + tensor({}) + "u")) == "the name of a tensor is an integer");
  CHECK(refusal(torch_file(dictionary({{"x", tensor({})}, {"x", tensor({})}}))) == "there are two tensors \"x\"");
  // A dictionary that holds itself.
  CHECK(refusal(torch_file("}q\1(" + text("model") + "h\1u")) == "holds no dictionary of tensors");
}

TEST_CASE("tensors that lead outside their storage are refused", "[torch]") {
  CHECK(refused_view({}) == "no error");
  CHECK(refused_view({.shape = {3, 3}}) ==
        "tensor \"x\" (shape [3, 3], strides [3, 1], offset 0) leads outside its storage of 6 elements");
  CHECK(refused_view({.offset = 1}) ==
        "tensor \"x\" (shape [2, 3], strides [3, 1], offset 1) leads outside its storage of 6 elements");
  CHECK(refused_view({.offset = INT64_MAX}).ends_with("leads outside its storage of 6 elements"));
  CHECK(refused_view({.strides = {INT64_MAX, INT64_MAX}}).ends_with("leads outside its storage of 6 elements"));
  CHECK(refused_view({.shape = {0, INT64_MAX}}).ends_with("leads outside its storage of 6 elements"));
  CHECK(refused_view({.offset = -1}) == "the offset of tensor \"x\" is -1, a number of 0 or more was expected");
  CHECK(refused_view({.shape = {-1, 3}}) == "the shape of tensor \"x\" is -1, a number of 0 or more was expected");
  CHECK(refused_view({.strides = {3, -1}}) == "the strides of tensor \"x\" is -1, a number of 0 or more was expected");
  CHECK(refused_view({.strides = {1}}) == "tensor \"x\" has the shape [2, 3] but the strides [1]");
  CHECK(refused_view({.shape = std::vector<int64_t>(9, 1)}) == "tensor \"x\" has more than 8 axes");
  CHECK(refused_view({.shape = {1 << 20, 1 << 20}, .strides = {0, 0}}) ==
        "tensor \"x\" (shape [1048576, 1048576], strides [0, 0]) repeats elements of its storage; save it as a "
        "contiguous tensor");
  CHECK(refused_view({.elements = 7}) == "the storage of tensor \"x\" should have 7 elements of F32, but has 24 bytes");
  CHECK(refused_view({.type = "DoubleStorage"}) ==
        "the storage of tensor \"x\" should have 6 elements of F64, but has 24 bytes");
  CHECK(refused_view({.storage = "1"}) == "there is no storage \"1\", which tensor \"x\" needs");
  CHECK(
      refused_view({.type = "QInt8Storage"}) ==
      "refers to the Python object \"torch.QInt8Storage\"; only tensors, dictionaries, lists, numbers and strings are "
      "read, and no code is run");
}

TEST_CASE("archives that torch did not write are refused", "[torch]") {
  const std::string good = pickle(state_dict({{"x", tensor({})}}));
  CHECK(refusal(archive({{"f/data.pkl", good}, {"f/data/0", six}})) == "no error");
  CHECK(refusal(archive({{"a", "b"}})) == "a zip archive, but none of torch: it has no data.pkl");
  CHECK(refusal(archive({{"f/data.pkl", good}, {"g/data.pkl", good}})) ==
        "the zip archive has two entries \"f/data.pkl\" and \"g/data.pkl\"");
  CHECK(refusal(archive({{"f/data.pkl", good}, {"f/data/0", six}, {"f/constants.pkl", ""}})) ==
        "a TorchScript program; save the state dict of the model instead");
  CHECK(refusal(archive({{"f/data.pkl", good}, {"f/data/0", six}, {"f/byteorder", "big"}})) ==
        "its byte order is \"big\", little was expected");
  CHECK(refusal(archive({{"f/data.pkl", "N."}})) == "not a pickle: it does not begin with a protocol number");
  CHECK(refusal("PK") != "no error");
  std::string damaged = archive({{"f/data.pkl", good}, {"f/data/0", six}});
  damaged[damaged.find(six)] ^= 1;
  CHECK(refusal(damaged).starts_with("entry \"f/data/0\" of the zip archive is damaged: "));
  const std::string whole = torch_file(state_dict({{"x", tensor({})}}));
  for (size_t size = 0; size < whole.size(); size += 7) CHECK(refusal(whole.substr(0, size)) != "no error");
  for (size_t at = 0; at < whole.size(); at++) {
    std::string changed = whole;
    changed[at] ^= 0x11;
    refusal(changed);  // an error in one line or none, but nothing worse
  }
}

TEST_CASE("the format of a file shows in its contents", "[torch]") {
  const TemporaryFolder folder;
  const std::string path = folder.write("model.bin", torch_file(state_dict({{"x", tensor({})}})));
  CHECK(load_weights(path).find("x")->shape() == Shape{2, 3});
  const std::string old = folder.write("old.pth", std::string("\x80\x02\x8a\x0al\xfc\x9c"
                                                              "F\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
                                                              21));
  for (const auto& read :
       {+[](const std::string& p) { list_weights(p); }, +[](const std::string& p) { load_weights(p); }})
    CHECK_THROWS_WITH(read(old),
                      old +
                          ": written by torch before 1.6, or with _use_new_zipfile_serialization=False; load it "
                          "in torch and save it again");
  CHECK_THROWS_WITH(load_weights(folder.write("short", "PK")), Catch::Contains("begins with 8 bytes"));
  CHECK_THROWS_WITH(load_weights(folder / "absent.pth"), Catch::Contains("absent.pth"));
}
