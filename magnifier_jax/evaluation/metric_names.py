"""How tables, charts and lines of text head the accuracies that `RankingMetrics.summary` names."""

HEADINGS = {
  "rank1": "rank-1",
  "rank5": "rank-5",
  "rank10": "rank-10",
  "rank20": "rank-20",
  "mAP": "mAP",
  "mINP": "mINP",
  "mAP_trapezoid": "mAP trapezoid",
}
PUBLISHED = ("rank1", "mAP")  # what papers give
