#include "knn.h"

#include <algorithm>
#include <vector>

#include "finite.h"

namespace splat {
namespace {

constexpr int64_t LEAF = 12;
constexpr int64_t QUERIES = 1024;  // a task
constexpr int MAX_K = 16;

struct Point {
  float x[3];
  int64_t id;
};

struct Node {
  int64_t begin, end;
  int64_t right;   // index of the right child; the left one follows its parent; 0: a leaf
  int axis;
  float split;
};

struct Tree {
  std::vector<Point> points;
  std::vector<Node> nodes;

  int64_t build(int64_t begin, int64_t end) {
    const int64_t at = static_cast<int64_t>(nodes.size());
    nodes.push_back({begin, end, 0, 0, 0.0f});
    if (end - begin <= LEAF) return at;
    float low[3], high[3];
    for (int a = 0; a < 3; a++) low[a] = high[a] = points[begin].x[a];
    for (int64_t i = begin; i < end; i++)
      for (int a = 0; a < 3; a++) low[a] = std::min(low[a], points[i].x[a]), high[a] = std::max(high[a], points[i].x[a]);
    int axis = 0;
    for (int a = 1; a < 3; a++)
      if (high[a] - low[a] > high[axis] - low[axis]) axis = a;
    const int64_t middle = begin + (end - begin) / 2;
    std::nth_element(points.begin() + begin, points.begin() + middle, points.begin() + end,
                     [axis](const Point &p, const Point &q) { return p.x[axis] < q.x[axis]; });
    const float split = points[middle].x[axis];
    build(begin, middle);
    const int64_t right = build(middle, end);
    nodes[at].right = right;
    nodes[at].axis = axis;
    nodes[at].split = split;
    return at;
  }
};

struct Best {  // the k smallest squared distances so far, ascending
  int k;
  float d[MAX_K];

  void offer(float v) {
    if (!(v < d[k - 1])) return;
    int i = k - 1;
    for (; i > 0 && d[i - 1] > v; i--) d[i] = d[i - 1];
    d[i] = v;
  }
};

// offset[a]: distance along a from the query to this node's cell, whose squares sum to a bound for everything inside.
void search(const Tree &tree, int64_t at, const Point &query, float *offset, Best *best) {
  const Node &node = tree.nodes[at];
  if (!node.right) {
    for (int64_t i = node.begin; i < node.end; i++) {
      const Point &p = tree.points[i];
      if (p.id == query.id) continue;
      const float a = p.x[0] - query.x[0], b = p.x[1] - query.x[1], c = p.x[2] - query.x[2];
      best->offer(a * a + b * b + c * c);
    }
    return;
  }
  const float to_split = query.x[node.axis] - node.split;
  const bool right_first = to_split >= 0.0f;
  search(tree, right_first ? node.right : at + 1, query, offset, best);
  const float before = offset[node.axis];
  offset[node.axis] = to_split;
  const float bound = offset[0] * offset[0] + offset[1] * offset[1] + offset[2] * offset[2];
  // A little slack: the bound's and the distance's roundings differ.
  if (bound * 0.99999f <= best->d[best->k - 1]) search(tree, right_first ? at + 1 : node.right, query, offset, best);
  offset[node.axis] = before;
}

struct Query {
  const Tree *tree;
  int64_t n;
  int k;
  float *out;
};

void answer(void *shared, int64_t task, int) {
  const Query &q = *static_cast<Query *>(shared);
  const int64_t end = std::min(q.n, (task + 1) * QUERIES);
  for (int64_t i = task * QUERIES; i < end; i++) {
    const Point &p = q.tree->points[i];
    Best best{q.k, {}};
    std::fill(best.d, best.d + q.k, 3.4e38f);
    float offset[3] = {0, 0, 0};
    search(*q.tree, 0, p, offset, &best);
    double sum = 0;
    for (int j = 0; j < q.k; j++) sum += static_cast<double>(best.d[j]);
    q.out[p.id] = static_cast<float>(sum / q.k);
  }
}

}  // namespace

void nearest_neighbours(Pool &pool, const SplatKnnArgs &args) {
  if (args.n <= 1) {
    check_finite(pool, "points", args.points, {0, args.n, 3});
    if (args.n == 1) args.mean_sq_dist[0] = 0.0f;
    return;
  }
  Tree tree;  // memory first: what there is no room for is not read either
  tree.points.reserve(static_cast<size_t>(args.n));
  tree.nodes.reserve(static_cast<size_t>(args.n / (LEAF / 4) + 4));
  check_finite(pool, "points", args.points, {0, args.n, 3});
  for (int64_t i = 0; i < args.n; i++) tree.points.push_back({{args.points[3 * i], args.points[3 * i + 1], args.points[3 * i + 2]}, i});
  tree.build(0, args.n);
  Query query{&tree, args.n, static_cast<int>(std::min<int64_t>(args.k, args.n - 1)), args.mean_sq_dist};
  pool.run((args.n + QUERIES - 1) / QUERIES, answer, &query);
}

}  // namespace splat
