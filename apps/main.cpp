// The fastntk command. Exit codes: 0 done, 1 failure, 2 usage, 130 interrupted.
#include <cstdio>

#include "apps/common.h"
#include "engine/progress.h"

namespace fastntk {
namespace {

int run(int argc, char** argv) {
  CLI::App app{"Fast-NTK: machine unlearning with the neural tangent kernel of a parameter-efficient subset"};
  app.name("fastntk");
  app.set_version_flag("--version", FASTNTK_VERSION);
  app.require_subcommand(1);
  apps::add_pretrain(app);
  apps::add_finetune(app);
  apps::add_unlearn(app);
  apps::add_prepare(app);
  apps::add_forget(app);
  apps::add_restore(app);
  apps::add_add(app);
  apps::add_relinearise(app);
  apps::add_verify(app);
  apps::add_report(app);
  apps::add_keygen(app);
  apps::add_evaluate(app);
  apps::add_predict(app);
  apps::add_jacobian(app);
  apps::add_ntk(app);
  apps::add_roofline(app);
  apps::add_info(app);
  apps::add_convert(app);
  apps::add_demo(app);
  try {
    install_interrupt_handler();
    const std::string first = argc > 1 ? argv[1] : "-";
    std::string known;
    bool is_known = first.starts_with("-");
    for (const CLI::App* const c : app.get_subcommands({})) {
      known += (known.empty() ? "" : ", ") + c->get_name();
      is_known |= c->get_name() == first;
    }
    require_usage(is_known, "there is no command '{}'; there are {}", first, known);
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
}

int fail(int code, const char* what) {
  std::fprintf(stderr, "fastntk: %s\n", what);
  return code;
}

}  // namespace
}  // namespace fastntk

int main(int argc, char** argv) {
  using namespace fastntk;
  try {
    return run(argc, argv);
  } catch (const UsageError& e) {
    return fail(2, e.what());
  } catch (const Interrupted& e) {
    return fail(130, e.what());
  } catch (const std::bad_alloc&) {
    return fail(1, "out of memory");
  } catch (const std::exception& e) {
    return fail(1, e.what());
  }
}
