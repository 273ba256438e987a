// Figures as self-contained SVG: plots with linear or logarithmic axes, and matrices as images.
#pragma once
#include <string>
#include <variant>
#include <vector>

#include "engine/tensor.h"

namespace fastntk {

struct PlotAxis {
  std::string label;
  bool logarithmic = false;  ///< values that are not positive are left out
};

struct PlotSeries {
  std::string label;  ///< in the legend; none if empty
  std::vector<double> x, y;
  bool line = true, markers = false;
};

struct Plot {
  std::string title;
  PlotAxis x, y;
  std::vector<PlotSeries> series;
};

/// A matrix as an image, row 0 at the top, with a bar of its colours. Values that are not finite are white. Matrices of
/// more than 512 rows or columns are shown by the means of their blocks.
struct HeatMap {
  std::string title, x_label, y_label, value_label;
  Tensor values;  ///< [rows, columns]
};

using Panel = std::variant<Plot, HeatMap>;

/// The panels side by side, as an SVG document. An Error where a series has x and y of different lengths.
std::string svg_figure(const std::vector<Panel>& panels);
/// One panel as an <svg> element that can stand in an HTML page.
std::string svg_panel(const Panel& panel);

}  // namespace fastntk
