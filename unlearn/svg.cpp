#include "unlearn/svg.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <png.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "engine/error.h"

namespace fastntk {
namespace {

constexpr double width = 460, height = 380;                     // of a panel
constexpr double left = 68, right = 18, top = 38, bottom = 54;  // around its axes
constexpr double bar = 62;                                      // right of an image, for its colours
constexpr int64_t largest_image = 512;

// Series colours: Okabe and Ito, distinguishable by the colour-blind.
constexpr std::array<const char*, 7> colours{"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                             "#E69F00", "#56B4E9", "#555555"};

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else
      out += c;
  }
  return out;
}

std::string text_at(double x, double y, const char* anchor, const std::string& text, const std::string& more = {}) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, anchor, more,
                     escape(text));
}

// Of the class "axis" or "grid", so that a page can give them other colours.
std::string line(double x1, double y1, double x2, double y2, const std::string& kind) {
  return fmt::format("<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n",
                     kind, x1, y1, x2, y2, kind == "grid" ? "#e4e4e4" : "#333");
}

// A number as people write it: 0.5, 200, 1e6.
std::string number(double v) {
  const double size = std::fabs(v);
  return size != 0 && (size >= 1e5 || size < 1e-3) ? fmt::format("{:.3g}", v) : fmt::format("{:.6g}", v);
}

struct Tick {
  double value;
  std::string label;  // empty: a small one
};

// An axis with its range and ticks, and where a value lies on it (0 … 1).
class Scale {
 public:
  Scale(const PlotAxis& axis, double low, double high) : logarithmic_(axis.logarithmic) {
    if (!(low <= high)) low = logarithmic_ ? 1 : 0, high = logarithmic_ ? 10 : 1;
    if (logarithmic_)
      decades(low, high);
    else
      steps(low, high);
  }
  bool shows(double v) const { return std::isfinite(v) && (!logarithmic_ || v > 0); }
  double place(double v) const { return ((logarithmic_ ? std::log10(v) : v) - low_) / (high_ - low_); }
  const std::vector<Tick>& ticks() const { return ticks_; }

 private:
  void decades(double low, double high) {
    low_ = std::log10(low), high_ = std::log10(high);
    const double margin = std::max(0.03 * (high_ - low_), 0.05);
    low_ -= margin, high_ += margin;
    // Of less than a decade the round numbers between say more than its few powers.
    if (high_ - low_ < 1) return round_numbers(std::pow(10.0, low_), std::pow(10.0, high_));
    const int first = static_cast<int>(std::floor(low_)), last = static_cast<int>(std::ceil(high_));
    const int every = std::max(1, (last - first + 5) / 6);
    for (int d = first; d <= last; d++) {
      const std::string label = last - first <= 4 ? number(std::pow(10.0, d)) : fmt::format("1e{}", d);
      add(std::pow(10.0, d), (d - first) % every == 0 ? label : "");
      if (last - first <= 4)
        for (int k = 2; k < 10; k++)
          add(k * std::pow(10.0, d), last - first <= 2 && (k == 2 || k == 5) ? number(k * std::pow(10.0, d)) : "");
    }
  }
  void steps(double low, double high) {
    if (low == high) low -= 0.5 * std::max(1.0, std::fabs(low)), high += 0.5 * std::max(1.0, std::fabs(high));
    const double margin = 0.03 * (high - low);
    low_ = low == 0 ? 0 : low - margin, high_ = high + margin;
    round_numbers(low_, high_);
  }
  // About six labelled ticks from low to high, the same distance apart.
  void round_numbers(double low, double high) {
    const double rough = (high - low) / 6, power = std::pow(10.0, std::floor(std::log10(rough)));
    const double step = power * (rough / power < 1.5 ? 1 : rough / power < 3.5 ? 2 : rough / power < 7.5 ? 5 : 10);
    // Adding 0 makes 0 of −0.
    // Counted, because where a step is below the rounding of the values adding one leads nowhere.
    const double first = std::ceil(low / step);
    for (int k = 0; k <= 20 && (first + k) * step <= high; k++)
      add((first + k) * step, number((first + k) * step + 0.0));
  }
  void add(double v, std::string label) {
    if (const double p = place(v); p >= -1e-9 && p <= 1 + 1e-9) ticks_.push_back({v, std::move(label)});
  }
  bool logarithmic_;
  double low_ = 0, high_ = 1;
  std::vector<Tick> ticks_;
};

std::string frame_and_labels(const std::string& title, const std::string& x, const std::string& y, double x1,
                             double y1) {
  return fmt::format(
             "<rect class=\"axis\" x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"none\" "
             "stroke=\"#333\"/>\n",
             left, top, x1 - left, y1 - top) +
         text_at((left + x1) / 2, top - 14, "middle", title, " font-size=\"14\" font-weight=\"bold\"") +
         text_at((left + x1) / 2, y1 + 40, "middle", x) +
         text_at(16, (top + y1) / 2, "middle", y, fmt::format(" transform=\"rotate(-90 16 {:.1f})\"", (top + y1) / 2));
}

std::string body(const Plot& plot) {
  const double x1 = width - right, y1 = height - bottom;
  double low[2], high[2];
  for (int axis = 0; axis < 2; axis++) {
    low[axis] = std::numeric_limits<double>::infinity(), high[axis] = -low[axis];
    const bool logarithmic = axis ? plot.y.logarithmic : plot.x.logarithmic;
    for (const PlotSeries& s : plot.series) {
      require(s.x.size() == s.y.size(), "the series '{}' has {} x and {} y", s.label, s.x.size(), s.y.size());
      for (const double v : axis ? s.y : s.x)
        if (std::isfinite(v) && (!logarithmic || v > 0))
          low[axis] = std::min(low[axis], v), high[axis] = std::max(high[axis], v);
    }
  }
  const Scale xs(plot.x, low[0], high[0]), ys(plot.y, low[1], high[1]);
  const auto px = [&](double v) { return left + xs.place(v) * (x1 - left); };
  const auto py = [&](double v) { return y1 - ys.place(v) * (y1 - top); };
  std::string out;
  for (const Tick& t : xs.ticks()) {
    if (!t.label.empty()) out += line(px(t.value), top, px(t.value), y1, "grid");
    out += line(px(t.value), y1, px(t.value), y1 + (t.label.empty() ? 3 : 6), "axis");
    if (!t.label.empty()) out += text_at(px(t.value), y1 + 20, "middle", t.label);
  }
  for (const Tick& t : ys.ticks()) {
    if (!t.label.empty()) out += line(left, py(t.value), x1, py(t.value), "grid");
    out += line(left - (t.label.empty() ? 3 : 6), py(t.value), left, py(t.value), "axis");
    if (!t.label.empty()) out += text_at(left - 9, py(t.value) + 4, "end", t.label);
  }
  // The legend is where a rising or falling curve is not.
  const bool at_left =
      !plot.series.empty() && !plot.series[0].y.empty() && plot.series[0].y.back() > plot.series[0].y[0];
  const double sample = at_left ? left + 8 : x1 - 26;
  double legend = top + 18;
  for (size_t k = 0; k < plot.series.size(); k++) {
    const PlotSeries& s = plot.series[k];
    const char* const colour = colours[k % colours.size()];
    std::string points, marks;
    for (size_t i = 0; i < s.x.size(); i++) {
      if (!xs.shows(s.x[i]) || !ys.shows(s.y[i])) continue;
      points += fmt::format("{:.2f},{:.2f} ", px(s.x[i]), py(s.y[i]));
      if (s.markers)
        marks += fmt::format("<circle cx=\"{:.2f}\" cy=\"{:.2f}\" r=\"2.4\" fill=\"{}\"/>\n", px(s.x[i]), py(s.y[i]),
                             colour);
    }
    if (s.line)
      out +=
          fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"/>\n", points, colour);
    out += marks;
    if (s.label.empty()) continue;
    out += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" stroke-width=\"3\"/>\n", sample,
        legend - 4, sample + 18, legend - 4, colour);
    out += at_left ? text_at(sample + 24, legend, "start", s.label) : text_at(sample - 6, legend, "end", s.label);
    legend += 17;
  }
  return out + frame_and_labels(plot.title, plot.x.label, plot.y.label, x1, y1);
}

// Viridis (van der Walt and Smith), at nine places.
std::array<uint8_t, 3> colour_of(double t) {
  constexpr std::array<std::array<double, 3>, 9> map{{{68, 1, 84},
                                                      {71, 44, 122},
                                                      {59, 81, 139},
                                                      {44, 113, 142},
                                                      {33, 144, 141},
                                                      {39, 173, 129},
                                                      {92, 200, 99},
                                                      {170, 220, 50},
                                                      {253, 231, 37}}};
  const double at = std::clamp(t, 0.0, 1.0) * 8;
  const auto k = std::min<size_t>(7, static_cast<size_t>(at));
  std::array<uint8_t, 3> out{};
  for (size_t c = 0; c < 3; c++)
    out[c] = static_cast<uint8_t>(std::lround(map[k][c] + (at - static_cast<double>(k)) * (map[k + 1][c] - map[k][c])));
  return out;
}

// An <image> with the pixels in it, as PNG.
std::string image(const std::vector<uint8_t>& pixels, int64_t rows, int64_t columns, double x, double y, double w,
                  double h) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(columns), png.height = static_cast<png_uint_32>(rows);
  png.format = PNG_FORMAT_RGB;
  png_alloc_size_t bytes = 0;
  require(png_image_write_to_memory(&png, nullptr, &bytes, 0, pixels.data(), 0, nullptr) != 0,
          "cannot make an image of {} by {} pixels: {}", columns, rows, png.message);
  std::vector<uint8_t> file(bytes);
  require(png_image_write_to_memory(&png, file.data(), &bytes, 0, pixels.data(), 0, nullptr) != 0,
          "cannot make an image of {} by {} pixels: {}", columns, rows, png.message);
  std::string text((bytes + 2) / 3 * 4 + 1, '\0');
  text.resize(static_cast<size_t>(
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), file.data(), static_cast<int>(bytes))));
  return fmt::format(
      "<image x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" preserveAspectRatio=\"none\" "
      "style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{}\"/>\n",
      x, y, w, h, text);
}

std::string body(const HeatMap& map) {
  require(map.values.rank() == 2 && map.values.elements() > 0, "an image needs a matrix, got {}",
          map.values.describe());
  const int64_t rows = map.values.extent(0), columns = map.values.extent(1);
  const auto v = map.values.to(DType::float64).to_vector<double>();
  const int64_t height_px = std::min(rows, largest_image), width_px = std::min(columns, largest_image);
  std::vector<double> means;
  for (int64_t i = 0; i < height_px; i++)
    for (int64_t j = 0; j < width_px; j++) {
      double sum = 0;
      int64_t count = 0;
      for (int64_t r = i * rows / height_px; r < (i + 1) * rows / height_px; r++)
        for (int64_t c = j * columns / width_px; c < (j + 1) * columns / width_px; c++, count++)
          sum += v[static_cast<size_t>(r * columns + c)];
      means.push_back(sum / static_cast<double>(count));
    }
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const double m : means)
    if (std::isfinite(m)) low = std::min(low, m), high = std::max(high, m);
  std::vector<uint8_t> pixels;
  for (const double m : means)
    for (const uint8_t c : std::isfinite(m) ? colour_of(high > low ? (m - low) / (high - low) : 0.5)
                                            : std::array<uint8_t, 3>{255, 255, 255})
      pixels.push_back(c);
  std::vector<uint8_t> colour_bar;
  for (int i = 255; i >= 0; i--)
    for (const uint8_t c : colour_of(i / 255.0)) colour_bar.push_back(c);

  const double x1 = width - right - bar, y1 = height - bottom;
  std::string out = image(pixels, height_px, width_px, left, top, x1 - left, y1 - top);
  const auto ticks = [](int64_t count) {
    const Scale scale({}, 0, static_cast<double>(count));
    std::vector<Tick> kept;
    for (const Tick& t : scale.ticks())
      if (t.value <= static_cast<double>(count)) kept.push_back(t);
    return kept;
  };
  for (const Tick& t : ticks(columns)) {
    const double x = left + t.value / static_cast<double>(columns) * (x1 - left);
    out += line(x, y1, x, y1 + 6, "axis") + text_at(x, y1 + 20, "middle", t.label);
  }
  for (const Tick& t : ticks(rows)) {
    const double y = top + t.value / static_cast<double>(rows) * (y1 - top);
    out += line(left - 6, y, left, y, "axis") + text_at(left - 9, y + 4, "end", t.label);
  }
  const double bar_x = x1 + 14;
  out += image(colour_bar, 256, 1, bar_x, top, 12, y1 - top);
  if (std::isfinite(low)) {
    const Scale scale({}, low, high);
    for (const Tick& t : scale.ticks()) {
      if (t.value < low || t.value > high || high == low) continue;
      const double y = y1 - (t.value - low) / (high - low) * (y1 - top);
      out += line(bar_x + 12, y, bar_x + 15, y, "axis") + text_at(bar_x + 18, y + 4, "start", t.label);
    }
  }
  out += text_at(bar_x + 15, y1 + 40, "end", map.value_label);
  return out + frame_and_labels(map.title, map.x_label, map.y_label, x1, y1);
}

std::string body(const Panel& panel) {
  return std::visit([](const auto& p) { return body(p); }, panel);
}

std::string document(double w, const std::string& content) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} "
      "{1:.0f}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n"
      "<rect class=\"paper\" width=\"{0:.0f}\" height=\"{1:.0f}\" fill=\"white\"/>\n{2}</svg>\n",
      w, height, content);
}

}  // namespace

std::string svg_figure(const std::vector<Panel>& panels) {
  std::string out;
  for (size_t k = 0; k < panels.size(); k++)
    out +=
        fmt::format("<g transform=\"translate({:.0f} 0)\">\n{}</g>\n", width * static_cast<double>(k), body(panels[k]));
  return document(width * static_cast<double>(panels.size()), out);
}

std::string svg_panel(const Panel& panel) { return document(width, body(panel)); }

}  // namespace fastntk
