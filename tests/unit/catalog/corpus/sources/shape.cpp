#include <memory>
#include <vector>

namespace shapes {

class Shape {
public:
    Shape(int x, int y) : x_(x), y_{y} {
        if (x < 0) x_ = 0;
    }
    virtual ~Shape() = default;
    virtual double area() const noexcept { return 0.0; }
    bool operator==(const Shape& other) const {
        return x_ == other.x_ && y_ == other.y_;
    }

private:
    int x_, y_;
};

template <typename T>
T largest(const std::vector<T>& items, T&& fallback) {
    if (items.empty()) {
        return fallback;
    }
    auto better = [](const T& a, const T& b) { return a < b ? b : a; };
    T best = items[0];
    for (const auto& item : items) {
        best = better(best, item);
    }
    return best;
}

}  // namespace shapes

double shapes::Shape::scaled(double by) const
{
    try {
        return area() * by;
    } catch (const std::exception& e) {
        return R"(if { while)" ? 1.0 : 0.0;
    }
}
