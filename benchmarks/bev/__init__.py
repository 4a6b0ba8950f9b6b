"""What the fusion of a camera and ultrasonic sensors from above claims, on synthetic scenes."""
