"""The same thing elsewhere: in other pictures, in a stream, or again in the same picture.

found = seg.find(frame, like=(reference_frame, mask))   # Masks, the most alike first; scores are likeness

It finds the same instance or the same look, not a category: the student learnt where things end, not what they are called.
"""

from tinyseg.predict.exemplar.matching import search
from tinyseg.predict.exemplar.reference import Reference, joined, reference_of
from tinyseg.predict.find_defaults import MAX_FOUND, THRESHOLD

__all__ = ["MAX_FOUND", "THRESHOLD", "Reference", "joined", "reference_of", "search"]
