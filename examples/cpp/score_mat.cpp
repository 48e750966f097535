// Score a board held in a cv::Mat and write an overlay of what was found:
//
//   score_mat BOARD.kad IMAGE OVERLAY.png
//
// Artifacts that denoise boards work too: libkad has no OpenCV, so it asks the caller to do that.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <kad/kad.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/photo.hpp>

namespace {

int32_t pixel_format(const cv::Mat& mat) {
  switch (mat.type()) {
    case CV_8UC1:
      return KAD_PIXEL_GREY8;
    case CV_8UC3:
      return KAD_PIXEL_BGR8;  // OpenCV's order
    case CV_8UC4:
      return KAD_PIXEL_BGRA8;
    case CV_16UC1:
      return KAD_PIXEL_GREY16;
    case CV_16UC3:
      return KAD_PIXEL_BGR16;
    default:
      throw std::invalid_argument("the image has neither 8 nor 16 bits");
  }
}

// Any cv::Mat, also a region of a larger one: its rows need not lie side by side.
kad_image view_of(const cv::Mat& mat) {
  return kad::image(mat.data, mat.rows, mat.cols, static_cast<int64_t>(mat.step[0]),
                    pixel_format(mat));
}

kad_status denoise(void*, const kad_denoise_frame* frame) noexcept try {
  cv::Mat rgb(frame->height, frame->width, CV_8UC3, frame->rgb);
  cv::Mat bgr;
  cv::cvtColor(rgb, bgr, cv::COLOR_RGB2BGR);  // it takes the first channel for blue
  cv::fastNlMeansDenoisingColored(bgr, bgr, static_cast<float>(frame->h),
                                  static_cast<float>(frame->h_color), frame->template_window,
                                  frame->search_window);
  cv::cvtColor(bgr, rgb, cv::COLOR_BGR2RGB);
  return KAD_OK;
} catch (...) {
  return KAD_ERROR_INTERNAL;
}

// The map over the board: from clear at 0 to red at twice the threshold and above; regions
// outlined.
cv::Mat draw(const cv::Mat& board, const kad::Result& result) {
  const kad_result_facts facts = result.facts();
  cv::Mat picture;
  board.convertTo(picture, CV_8U, board.depth() == CV_16U ? 1.0 / 257 : 1.0);
  if (picture.channels() == 1) cv::cvtColor(picture, picture, cv::COLOR_GRAY2BGR);
  if (picture.channels() == 4) cv::cvtColor(picture, picture, cv::COLOR_BGRA2BGR);
  for (int y = 0; facts.map != nullptr && y < picture.rows; ++y) {
    const float* values = facts.map + static_cast<int64_t>(y) * picture.cols;
    for (int x = 0; x < picture.cols; ++x) {
      if (std::isnan(values[x])) continue;
      const double strength = std::min(0.5 * values[x] / facts.map_threshold, 1.0);
      cv::Vec3b& pixel = picture.at<cv::Vec3b>(y, x);
      pixel = cv::Vec3b(cv::Vec3d(pixel) * (1.0 - 0.6 * strength) +
                        cv::Vec3d(0, 0, 255) * 0.6 * strength);
    }
  }
  for (const kad_region_result& r : result.regions()) {
    cv::rectangle(picture, cv::Rect(r.x, r.y, r.width, r.height), cv::Scalar(0, 255, 255), 2);
  }
  return picture;
}

int run(const char* artifact, const char* image_path, const char* overlay_path) {
  const cv::Mat board = cv::imread(image_path, cv::IMREAD_ANYCOLOR | cv::IMREAD_ANYDEPTH);
  if (board.empty()) throw std::invalid_argument(std::string(image_path) + ": no image");
  auto options = kad::make<kad_detector_options>();
  options.denoise = denoise;
  const kad::Detector detector(artifact, options);
  kad::Session session(detector);
  const kad::Result result = session.score(view_of(board));
  const kad_result_facts facts = result.facts();
  std::cout << image_path << ": " << (facts.anomalous ? "anomalous" : "normal") << ", score "
            << facts.score << ", " << facts.n_regions << " regions\n";
  if (!cv::imwrite(overlay_path, draw(board, result))) {
    throw std::runtime_error(std::string(overlay_path) + ": cannot be written");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: score_mat BOARD.kad IMAGE OVERLAY.png\n";
    return 1;
  }
  try {
    return run(argv[1], argv[2], argv[3]);
  } catch (const std::exception& error) {
    std::cerr << "score_mat: " << error.what() << "\n";
    return 1;
  }
}
