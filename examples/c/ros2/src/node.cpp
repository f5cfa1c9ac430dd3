// A ROS 2 node: sensor_msgs/Image in, a mono8 mask of the clicked object out. A sketch: not built or run with ROS 2 yet.
//
//   ros2 run tinyseg_node tinyseg_node --ros-args -p model:=MODEL -r image:=/camera/image_raw
//   ros2 topic pub --once /click geometry_msgs/msg/Point '{x: 320, y: 240}'
#include <tinyseg.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "geometry_msgs/msg/point.hpp"
#include "rclcpp/rclcpp.hpp"
#include "sensor_msgs/msg/image.hpp"

class Node : public rclcpp::Node {
 public:
  Node() : rclcpp::Node("tinyseg") {
    tinyseg_options options{};
    const std::string folder = declare_parameter("model", ""), engine = declare_parameter("engine", "onnxruntime"),
                      precision = declare_parameter("precision", "fp32");
    options.size = sizeof options;
    options.engine = engine.c_str();
    options.precision = precision.c_str();
    check(tinyseg_open(folder.c_str(), &options, &model_));
    check(tinyseg_session_new(model_, &session_));
    masks_ = create_publisher<sensor_msgs::msg::Image>("mask", rclcpp::SensorDataQoS());
    clicks_ = create_subscription<geometry_msgs::msg::Point>("click", 1, [this](geometry_msgs::msg::Point::ConstSharedPtr p) {
      click_[0] = p->x;
      click_[1] = p->y;
      clicked_ = true;
    });
    // A queue of one: while a frame is segmented, older ones are dropped.
    images_ = create_subscription<sensor_msgs::msg::Image>("image", rclcpp::SensorDataQoS().keep_last(1),
                                                           [this](sensor_msgs::msg::Image::ConstSharedPtr m) { segment(*m); });
  }
  ~Node() override {
    tinyseg_session_free(session_);
    tinyseg_close(model_);
  }

 private:
  static void check(tinyseg_status status) {
    if (status != TINYSEG_OK) throw std::runtime_error(tinyseg_last_error());
  }

  void segment(const sensor_msgs::msg::Image& in) {
    tinyseg_image image{};
    if (in.encoding == "bgr8") image.format = TINYSEG_BGR;
    else if (in.encoding == "rgb8") image.format = TINYSEG_RGB;
    else if (in.encoding == "mono8") image.format = TINYSEG_GRAY;
    else {
      RCLCPP_ERROR_THROTTLE(get_logger(), *get_clock(), 5000, "encoding %s: bgr8, rgb8 or mono8 is wanted", in.encoding.c_str());
      return;
    }
    if (!clicked_) return;
    image.data = in.data.data();
    image.width = int(in.width);
    image.height = int(in.height);
    image.row_stride = std::ptrdiff_t(in.step);
    auto out = std::make_unique<sensor_msgs::msg::Image>();
    out->header = in.header;
    out->width = in.width;
    out->height = in.height;
    out->step = in.width;
    out->encoding = "mono8";
    out->data.resize(std::size_t(in.width) * in.height);
    const int label = 1;
    tinyseg_prompt prompt{};
    prompt.points = click_;
    prompt.labels = &label;
    prompt.count = 1;
    tinyseg_mask mask{};
    mask.pixels = out->data.data();
    if (tinyseg_run(session_, &image, &prompt, 1, TINYSEG_ZOOM_AUTO, &mask) != TINYSEG_OK) {
      RCLCPP_ERROR_THROTTLE(get_logger(), *get_clock(), 5000, "%s", tinyseg_last_error());
      return;
    }
    for (auto& pixel : out->data) pixel = pixel ? 255 : 0;
    masks_->publish(std::move(out));
  }

  tinyseg_model* model_ = nullptr;
  tinyseg_session* session_ = nullptr;
  double click_[2] = {0, 0};
  bool clicked_ = false;
  rclcpp::Publisher<sensor_msgs::msg::Image>::SharedPtr masks_;
  rclcpp::Subscription<sensor_msgs::msg::Image>::SharedPtr images_;
  rclcpp::Subscription<geometry_msgs::msg::Point>::SharedPtr clicks_;
};

int main(int argc, char** argv) {
  rclcpp::init(argc, argv);
  try {
    rclcpp::spin(std::make_shared<Node>());
  } catch (const std::exception& problem) {
    RCLCPP_FATAL(rclcpp::get_logger("tinyseg"), "%s", problem.what());
    return 1;
  }
  rclcpp::shutdown();
  return 0;
}
