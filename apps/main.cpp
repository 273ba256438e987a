// The fastntk command. Exit codes: 0 done, 1 failure, 2 usage, 130 interrupted.
#include <cstdio>

#include "apps/common.h"
#include "engine/progress.h"

int main(int argc, char** argv) {
  using namespace fastntk;
  CLI::App app{"Fast-NTK: machine unlearning with the neural tangent kernel of a parameter-efficient subset"};
  app.name("fastntk");
  app.set_version_flag("--version", FASTNTK_VERSION);
  app.require_subcommand(1);
  apps::add_pretrain(app);
  apps::add_finetune(app);
  apps::add_unlearn(app);
  apps::add_prepare(app);
  apps::add_forget(app);
  apps::add_verify(app);
  apps::add_evaluate(app);
  apps::add_predict(app);
  apps::add_jacobian(app);
  apps::add_ntk(app);
  apps::add_info(app);
  apps::add_convert(app);
  apps::add_demo(app);
  try {
    install_interrupt_handler();
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : 2;
  } catch (const UsageError& e) {
    fmt::print(stderr, "fastntk: {}\n", e.what());
    return 2;
  } catch (const Interrupted& e) {
    fmt::print(stderr, "fastntk: {}\n", e.what());
    return 130;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "fastntk: out of memory\n");
    return 1;
  } catch (const std::exception& e) {
    fmt::print(stderr, "fastntk: {}\n", e.what());
    return 1;
  }
}
