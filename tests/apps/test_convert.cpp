// fastntk info and fastntk convert on files of every format.
#include "apps/command.h"
#include "engine/safetensors.h"
#include "models/checkpoint.h"
#include "models/peft.h"
#include "temporary_folder.h"
#include "torch_writer.h"

using namespace fastntk;
using namespace fastntk::test;
using Catch::Contains;

namespace {

// What torch.save(model.state_dict()) would write.
std::string torch_file(const Model& model, const std::string& prefix = {}) {
  std::vector<std::pair<std::string, std::string>> entries, files;
  for (const auto& [name, value] : state(*model)) {
    torch_writer::View view;
    view.storage = std::to_string(files.size());
    view.type = value.dtype() == DType::int64 ? "LongStorage" : "FloatStorage";
    view.elements = value.elements();
    view.shape.assign(value.shape().begin(), value.shape().end());
    const Shape strides = contiguous_strides(value.shape());
    view.strides.assign(strides.begin(), strides.end());
    entries.emplace_back(prefix + name, torch_writer::tensor(view));
    const auto bytes = fastntk::bytes_of(value);
    files.emplace_back("m/data/" + view.storage,
                       std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  files.emplace_back("m/data.pkl", torch_writer::pickle(torch_writer::state_dict(entries)));
  return torch_writer::archive(files);
}

std::vector<double> values(const Model& model) { return gather(*model, choose(*model, "all")).to_vector<double>(); }

}  // namespace

TEST_CASE("fastntk info says what is in a file, and which architecture it fits") {
  const TemporaryFolder folder;
  const Model model = make_model({.architecture = "convnet", .classes = 4, .options = {{"width", "2"}}}, 1);
  const std::string path = folder.write("m.pth", torch_file(model, "module."));
  Result r = run("info " + path);
  CHECK(r.code == 0);
  CHECK_THAT(r.output, Contains("m.pth (torch)") && Contains("module.conv1.weight") && Contains("F32   [2, 3, 3, 3]") &&
                           Contains("20 tensors") &&
                           Contains("fits: convnet, classes 4, channels 3, width 2 (use --arch convnet)"));
  SafeTensors cut{{}, state(*model)};
  cut.tensors.pop_back();
  std::erase_if(cut.tensors, [](const auto& t) { return t.first == "bn2.bias"; });
  cut.save(folder / "cut.safetensors");
  r = run("info " + (folder / "cut.safetensors"));
  CHECK(r.code == 0);
  CHECK_THAT(r.output, Contains("no architecture that is known fits") && Contains("convnet would: missing bn2.bias"));
  check_refused("info " + folder.write("bad.pth", "PK\3\4nothing"), 1, "cannot be read as a zip archive");
  check_refused("info " + folder.write("evil.pth", torch_writer::archive({{"a/data.pkl",
                                                                           "\x80\x02"
                                                                           "cos\nsystem\n."}})),
                1, "refers to the Python object \"os.system\"");
}

TEST_CASE("fastntk convert makes model files of what torch saved") {
  const TemporaryFolder folder;
  const Model model = make_model({.architecture = "convnet", .classes = 4, .options = {{"width", "2"}}}, 1);
  const std::string path = folder.write("m.pth", torch_file(model, "module.")), out = folder / "m.safetensors";

  CHECK(run("convert " + path + " " + out + " --arch convnet").code == 0);
  CHECK(values(load_model(out).model) == values(model));
  CHECK(load_model(out).model.config.str() == model.config.str());

  // Without an architecture nothing is renamed, and nothing stored of a model.
  CHECK(run("convert " + path + " " + out).code == 0);
  CHECK(SafeTensors::load(out).find("module.fc.bias") != nullptr);
  CHECK(SafeTensors::load(out).metadata.empty());

  CHECK(run("convert " + path + " " + out + " --arch convnet --dtype bf16").code == 0);
  CHECK(read_safetensors_header(out).tensors[0].stored == StoredType::bf16);
  CHECK(values(load_model(out).model) != values(model));

  const std::string index = folder / "m.safetensors.index.json";
  CHECK(run("convert " + path + " " + index + " --arch convnet --shard-size 1500").code == 0);
  CHECK(file_exists(folder / "m-00001-of-00002.safetensors"));
  CHECK(values(load_model(index).model) == values(model));

  CHECK(run("convert " + path + " " + out + " --arch convnet --classes 6 --replace-head --head keep-and-zero").code ==
        0);
  CHECK(load_model(out).model.config.classes == 6);

  const std::string no = folder / "no.safetensors";
  check_refused("convert " + path + " " + no + " --arch convnet --classes 6", 2, "has 4 classes, not 6; --replace-head",
                no);
  check_refused("convert " + path + " " + no + " --arch resnet18", 1,
                "does not fit the model: missing layer1.0.conv1.weight", no);
  check_refused("convert " + path + " " + no + " --classes 4", 2, "--classes needs --arch", no);
  check_refused("convert " + path + " " + no + " --arch convnet --replace-head", 2, "--replace-head needs --classes",
                no);
  check_refused("convert " + path + " " + no + " --dtype f8", 2, "--dtype", no);
  check_refused("convert " + path + " " + no + ".txt", 2, "must end in .safetensors", no + ".txt");
  check_refused("convert " + path + " " + no + " --shard-size 1M", 2, "--shard-size", no);
}
