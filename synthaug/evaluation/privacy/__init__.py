"""Privacy of generators: copies of training lesions, by texture, features and masks, and who was trained on."""

from synthaug.evaluation.privacy.copies import copied, mask_hash
from synthaug.evaluation.privacy.features import patient_similarity
from synthaug.evaluation.privacy.texture import texture_similarity

__all__ = ["copied", "mask_hash", "patient_similarity", "texture_similarity"]
