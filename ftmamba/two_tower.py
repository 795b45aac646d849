"""Two towers that meet in an inner product."""

from __future__ import annotations

from torch import Tensor, nn

from ftmamba.encoder import FTEncoder
from ftmamba.features import FeatureBatch


class TwoTower(nn.Module):
    """A user tower and a content tower (arXiv 2409.17165, section 3); the score of a pair is their inner product.

    Args:
        user: tower of the user table.
        content: tower of the content table, of the same output width.

    Shape:
        FeatureBatch of B users and FeatureBatch of B contents -> (B,) scores, pair by pair.

    Raises:
        ValueError: the towers' output widths differ.

    Examples:
        >>> import torch
        >>> from ftmamba import EncoderSpec, FeatureBatch, FeatureSpec, FTEncoder, MambaSpec, TwoTower
        >>> spec = EncoderSpec(mixer=MambaSpec(), d_model=16, n_layers=1)
        >>> model = TwoTower(FTEncoder(spec, FeatureSpec(3)), FTEncoder(spec, FeatureSpec(1)))
        >>> none = torch.empty(5, 0, dtype=torch.int64)
        >>> model(FeatureBatch(torch.randn(5, 3), none), FeatureBatch(torch.randn(5, 1), none)).shape
        torch.Size([5])
    """

    def __init__(self, user: FTEncoder, content: FTEncoder) -> None:
        super().__init__()
        if user.spec.output_width != content.spec.output_width:
            raise ValueError(
                f"towers end in different widths: {user.spec.output_width} and {content.spec.output_width}"
            )
        self.user = user
        self.content = content

    def forward(self, users: FeatureBatch, contents: FeatureBatch) -> Tensor:
        return (self.user(users) * self.content(contents)).sum(-1)  # type: ignore[no-any-return]
