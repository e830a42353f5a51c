from studies import gaussian_toy


def test_paper_disentangles_the_label_distribution_and_reference_does_not():
    paper, reference = (gaussian_toy.distances(name) for name in ("paper", "reference"))
    assert paper["disentangled"] < 0.1 < 1.0 < paper["entangled"]
    assert reference["entangled"] < 0.1 < 1.0 < reference["disentangled"]
